/** The report of moextend bench as one page. */
import { render } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import "./page.css";
import { experiment as load, report, shown, site, type Experiment } from "./data";
import { useNews } from "./live";
import { href, named, numberOf, useRoute, type Route } from "./route";
import { arrows } from "./ui/arrows";
import { Choice, Empty, useLoaded, Waiting } from "./ui/parts";
import { Overview } from "./views/overview";
import { Matrices } from "./views/matrix";
import { ItemList } from "./views/items";
import { ItemView } from "./views/item";
import { CHANGED, FlipsView } from "./views/flips";
import { FORMAT, Readings } from "./views/readings";
import { Routing } from "./views/routing";
import { Costs } from "./views/costs";
import { Row } from "./views/row";
import { SITE_VIEWS } from "./views/site";
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

/** Views that a link of another one leads to -> where they belong. */
const INNER: Record<string, [view: (props: ViewProps) => preact.JSX.Element, title: string, of: string]> = {
  item: [ItemView, "Item", "items"],
  row: [Row, "Row", "overview"],
};

function App() {
  const route = useRoute();
  const news = useNews();
  const titles = site ? site.sequences.map((one) => one.key) : report().experiments.map((one) => one.title);
  const number = Math.min(numberOf(route), titles.length - 1);
  const loaded = useLoaded(() => (number < 0 ? Promise.resolve(undefined) : load(number)), String(number));
  const experiment: Experiment | undefined = site ? loaded.value : report().experiments[number];
  const home = site && number < 0 ? (SITE_VIEWS.find(([key]) => key === route.view) ?? SITE_VIEWS[0]) : undefined;
  const Home = home?.[2];
  const runs = shown && (route.view === "runs" || !experiment);
  const [inner, listed] = [INNER[route.view], VIEWS.find(([key]) => key === route.view) ?? VIEWS[0]];
  const [View, title] = inner ?? [listed[2], listed[1]];
  const current = inner?.[2] ?? listed[0];
  useEffect(() => {
    const what = route.get("m") && (inner || home) ? route.get("m") : (home?.[1] ?? title);
    if (site) document.title = `${what}${home ? "" : `: ${titles[number]}`}, moextend leaderboard`;
    else document.title = experiment ? `${runs ? "Runs" : what}: ${experiment.name}, moextend report` : "moextend: runs";
  }, [title, experiment, runs, home, route.get("m")]);
  useEffect(() => {
    window.scrollTo(0, 0);
    const [nav, own] = [document.querySelector<HTMLElement>("header nav"), document.querySelector<HTMLElement>("header nav [aria-current]")];
    // Not scrollIntoView: the next Tab would start from there.
    if (nav && own) nav.scrollLeft = own.offsetLeft - nav.offsetLeft - (nav.clientWidth - own.offsetWidth) / 2;
  }, [route.view, number, route.get("id"), route.get("m")]);
  useEffect(() => window.addEventListener("keydown", arrows), []);
  const tab = (key: string, text: string, own: boolean, x: string | number | null = null) => (
    <a href={href(key, { x })} aria-current={own ? "page" : undefined}>
      {text}
    </a>
  );
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        Skip to the content
      </a>
      <header>
        <div class="bar">
          <p class="brand">
            <b>moextend</b> {site ? <a href={href("sequences")}>leaderboard</a> : "report"} <span class="muted">{home ? "" : experiment?.title}</span>
          </p>
          {!home && titles.length > 1 && (
            <Choice
              label={site ? "Sequence" : "Experiment"}
              value={number}
              options={titles.map((one, place) => [place, one])}
              onChange={(value) => (location.hash = href(inner ? current : route.view, { x: named(Number(value)) }))}
            />
          )}
          {shown && <Connection news={news} />}
          <Theme />
        </div>
        <nav aria-label="Views">
          {site && (home ? SITE_VIEWS.slice(0, 3) : SITE_VIEWS.slice(0, 1)).map(([key, text]) => tab(key, home ? text : `← ${text}`, key === home?.[0] || (home?.[0] === "method" && key === "methods")))}
          {shown && tab("runs", "Runs", Boolean(runs), named(number))}
          {!home && experiment && VIEWS.map(([key, text]) => tab(key, text, !runs && key === current, named(number)))}
        </nav>
      </header>
      <main id="main" tabIndex={-1}>
        {home && route.get("x") ? <Empty title="Sequence">{`There is no sequence “${route.get("x")}” here.`}</Empty> : Home ? <Home route={route} /> : runs ? <Runs news={news} /> : experiment ? <View key={number} experiment={experiment} number={number} route={route} /> : site ? <Waiting title={titles[number]} error={loaded.error} /> : null}
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
