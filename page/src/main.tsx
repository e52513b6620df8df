/** The report of moextend bench as one page. */
import { render } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import "./page.css";
import { report, shown, type Experiment } from "./data";
import { useNews } from "./live";
import { href, useRoute, type Route } from "./route";
import { arrows } from "./ui/arrows";
import { Choice } from "./ui/parts";
import { Overview } from "./views/overview";
import { Matrices } from "./views/matrix";
import { ItemList } from "./views/items";
import { ItemView } from "./views/item";
import { CHANGED, FlipsView } from "./views/flips";
import { FORMAT, Readings } from "./views/readings";
import { Routing } from "./views/routing";
import { Costs } from "./views/costs";
import { Connection, Runs } from "./views/runs";

export interface ViewProps {
  experiment: Experiment;
  /** Place of the experiment in the report. */
  number: number;
  route: Route;
}

const VIEWS: [key: string, title: string, view: (props: ViewProps) => preact.JSX.Element][] = [
  ["overview", "Summary", Overview],
  ["matrix", "Matrices", Matrices],
  ["items", "Items", ItemList],
  ["flips", CHANGED, FlipsView],
  ["readings", FORMAT, Readings],
  ["routing", "Routing", Routing],
  ["costs", "Costs", Costs],
];

function App() {
  const route = useRoute();
  const news = useNews();
  const data = report();
  const number = Math.min(Number(route.get("x") || 0), data.experiments.length - 1) || 0;
  const experiment: Experiment | undefined = data.experiments[number];
  const runs = shown && (route.view === "runs" || !experiment);
  const [, title, View] = VIEWS.find(([key]) => key === route.view) ?? (route.view === "item" ? ["item", "Item", ItemView] : VIEWS[0]);
  useEffect(() => {
    document.title = experiment ? `${runs ? "Runs" : title}: ${experiment.name}, moextend report` : "moextend: runs";
  }, [title, experiment, runs]);
  useEffect(() => {
    window.scrollTo(0, 0);
    document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [route.view, number, route.get("id")]);
  useEffect(() => window.addEventListener("keydown", arrows), []);
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        Skip to the content
      </a>
      <header>
        <div class="bar">
          <p class="brand">
            <b>moextend</b> report <span class="muted">{experiment?.title}</span>
          </p>
          {data.experiments.length > 1 && (
            <Choice
              label="Experiment"
              value={number}
              options={data.experiments.map((one, place) => [place, one.title])}
              onChange={(value) => (location.hash = href(route.view, { x: Number(value) || null }))}
            />
          )}
          {shown && <Connection news={news} />}
          <Theme />
        </div>
        <nav aria-label="Views">
          {shown && (
            <a href={href("runs", { x: number || null })} aria-current={runs ? "page" : undefined}>
              Runs
            </a>
          )}
          {experiment &&
            VIEWS.map(([key, text]) => (
              <a href={href(key, { x: number || null })} aria-current={!runs && (key === route.view || (key === "items" && route.view === "item") || (key === "overview" && View === Overview)) ? "page" : undefined}>
                {text}
              </a>
            ))}
        </nav>
      </header>
      <main id="main" tabIndex={-1}>
        {runs ? <Runs news={news} /> : experiment ? <View key={number} experiment={experiment} number={number} route={route} /> : null}
      </main>
    </>
  );
}

/** Moves the focus without changing the address, which names the view. */
function skip(event: MouseEvent) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

const THEMES = ["auto", "light", "dark"];

function Theme() {
  const [theme, setTheme] = useState(stored);
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("moextend-theme", theme);
    } catch {
      // pages on a disk may keep nothing
    }
  }, [theme]);
  const next = useMemo(() => THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length], [theme]);
  return (
    <button type="button" class="small theme" onClick={() => setTheme(next)} title={`Switch to ${next}`}>
      Theme: {theme}
    </button>
  );
}

function stored(): string {
  try {
    const found = localStorage.getItem("moextend-theme") ?? "auto";
    return THEMES.includes(found) ? found : "auto";
  } catch {
    return "auto";
  }
}

const root = document.getElementById("app");
if (root) {
  root.textContent = "";
  render(<App />, root);
}
