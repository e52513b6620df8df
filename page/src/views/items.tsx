/** Lifelines: every item with what became of it under every method. */
import { useMemo } from "preact/hooks";
import { items as load, media, type Items, type Media, type Medium, type Task } from "../data";
import { FATES, fateAt, rightAt, type Fate } from "../fate";
import { FILTERS, filtered, seeds, sequenceMethods, shownMethods, shownRuns, type Shown } from "../filter";
import { plural } from "../format";
import type { ViewProps } from "../main";
import { href, named, replace } from "../route";
import { Choice, Copy, Empty, Search, useLoaded, useNarrow, Waiting } from "../ui/parts";
import { Marker } from "../ui/marker";
import { VirtualList } from "../ui/virtual";

export interface Loaded {
  task: Task;
  items: Items;
  media: Media;
}

/** The items of one task, or of all, and their pictures. */
export function useItems(tasks: Task[]): { value?: Loaded[]; error?: string } {
  const all = () => Promise.all(tasks.map(async (task) => ({ task, items: await load(task), media: await media(task) })));
  return useLoaded(all, tasks.map((task) => task.part).join(" "));
}

export const NO_ITEMS = "These runs keep neither the answers nor the scores of single items.";
const LINE = 15;

export function ItemList({ experiment, number, route }: ViewProps) {
  const known = experiment.tasks.filter((task) => task.items > 0);
  const asked = route.get("t");
  const tasks = asked === "*" ? known : known.filter((task) => task.key === (asked || known[0]?.key));
  const loaded = useItems(tasks);
  const shown = shownRuns(experiment, route);
  const settings = ["f", "kind", "q", "a", "b", "seed", "stage", "show"].map(route.get).join("\u0000");
  const found = useMemo(
    () => (loaded.value ?? []).flatMap((own, place) => filtered(own.items, shown, route).map((item) => [place, item] as const)),
    [loaded.value, settings],
  );
  const phone = useNarrow();
  if (!known.length) return <Empty title="Items">{NO_ITEMS}</Empty>;
  const total = (loaded.value ?? []).reduce((sum, own) => sum + own.items.ids.length, 0);
  const height = phone ? 104 + shown.length * LINE + 16 : Math.max(92, shown.length * LINE + 26);
  const kinds = [...new Set(tasks.flatMap((task) => task.kinds))].sort();
  const labels = sequenceMethods(experiment).map((one) => [one.label, one.label] as [string, string]);
  const filter = route.get("f");
  const lacks = tasks.filter((task) => task.lacks);
  return (
    <>
      <h1>Items</h1>
      <div class="controls" role="search">
        <Choice label="Task" value={asked || known[0].key} options={[...known.map((task) => [task.key, task.name] as [string, string]), ["*", "All tasks"]]} onChange={(t) => replace({ t, kind: "" })} />
        <Choice label="Show" value={filter} options={FILTERS} onChange={(f) => replace({ f, ...(f === "a-not-b" && !route.get("a") ? { a: labels[0]?.[0], b: labels[1]?.[0] } : {}) })} />
        <Choice label={filter === "a-not-b" ? "A" : "Under"} value={route.get("a")} options={[["", filter === "never" || filter === "always" ? "every method" : "any method"], ...labels]} onChange={(a) => replace({ a })} />
        {filter === "a-not-b" && <Choice label="B" value={route.get("b")} options={[["", "choose"], ...labels]} onChange={(b) => replace({ b })} />}
        {(filter === "right" || filter === "wrong") && (
          <Choice label="Stage" value={route.get("stage") || 0} options={Array.from({ length: loaded.value?.[0]?.items.stages ?? 1 }, (_, stage) => [stage, stage ? String(stage) : "0 (base)"])} onChange={(stage) => replace({ stage })} />
        )}
        {kinds.length > 0 && <Choice label="Kind" value={route.get("kind")} options={[["", "all kinds"], ...kinds.map((kind) => [kind, kind] as [string, string])]} onChange={(kind) => replace({ kind })} />}
        <Choice label="Seed" value={route.get("seed") || seeds(experiment)[0]} options={seeds(experiment).map((seed) => [seed, String(seed)])} onChange={(seed) => replace({ seed })} />
        <Search label="Search" about="question, answer, id" value={route.get("q")} onChange={(q) => replace({ q })} />
      </div>
      <CellSource experiment={experiment} number={number} route={route} shown={shown} task={tasks[0]} />
      <MethodChoice experiment={experiment} route={route} />
      {lacks.map((task) => (
        <p class="muted">
          {task.name}: {task.lacks}
        </p>
      ))}
      <div class="found">
        <p aria-live="polite" id="found">
          {loaded.value ? `${found.length.toLocaleString("en-US")} of ${plural(total, "item")}` : ""}
        </p>
        <Legend />
      </div>
      {loaded.value ? (
        <VirtualList
          count={found.length}
          height={height}
          label="Items"
          row={(place) => {
            const [own, item] = found[place];
            return <Row own={loaded.value![own]} item={item} shown={shown} link={href("item", { ...kept(route), x: named(number), t: asked, of: tasks[own].key, id: loaded.value![own].items.ids[item] })} />;
          }}
        />
      ) : (
        <Waiting error={loaded.error} />
      )}
    </>
  );
}

/** The settings of the list, which an item's address keeps so that the list can be left and entered again. */
export function kept(route: { get(name: string): string }): Record<string, string> {
  return Object.fromEntries(["f", "a", "b", "stage", "kind", "seed", "q", "show"].map((name) => [name, route.get(name)]));
}

/** Where the items of one cell are shown: the command that says what its score rests on. */
function CellSource({ route, shown, task }: ViewProps & { shown: Shown[]; task: Task | undefined }) {
  const own = shown.find((one) => one.method.label === route.get("a"));
  if (!own || !task || !["right", "wrong"].includes(route.get("f"))) return null;
  const stage = route.get("stage") || "0";
  const command = `moextend bench explain ${own.run.name} ${stage} ${task.key}`;
  return (
    <div class="command">
      <span>
        {task.name} after stage {stage} of {own.run.name}: <code>{command}</code>
      </span>
      <Copy text={command} />
    </div>
  );
}

function MethodChoice({ experiment, route }: Pick<ViewProps, "experiment" | "route">) {
  const all = sequenceMethods(experiment);
  const shown = shownMethods(experiment, route);
  const toggle = (place: number) => {
    const places = all.map((_, i) => i).filter((i) => (i === place ? !shown.includes(all[i]) : shown.includes(all[i])));
    replace({ show: places.join(",") });
  };
  return (
    <details class="methods">
      <summary>
        {shown.length} of {plural(all.length, "method")} shown
      </summary>
      <div class="checks">
        {all.map((method, place) => (
          <label class="check">
            <input type="checkbox" checked={shown.includes(method)} onChange={() => toggle(place)} /> <Marker method={method} /> {method.label}
          </label>
        ))}
      </div>
    </details>
  );
}

export function Legend() {
  return (
    <ul class="fates" aria-label="Colours">
      {FATES.map((fate) => (
        <li>
          <span class={`swatch ${fate}`} aria-hidden="true" /> {fate}
        </li>
      ))}
    </ul>
  );
}

function Row({ own, item, shown, link }: { own: Loaded; item: number; shown: Shown[]; link: string }) {
  const { items, task } = own;
  return (
    <a class="item" href={link}>
      <Shows medium={pictured(mediaOf(own, item))} />
      <span class="asked">
        <b>{items.question[item] || items.ids[item]}</b>
        <span class="reference">{items.reference[item]}</span>
        <span class="muted small-text">{[items.kind[item], items.question[item] ? items.ids[item] : task.name].filter(Boolean).join(" · ")}</span>
      </span>
      <Lifeline items={items} item={item} shown={shown} />
    </a>
  );
}

/** Shows the pixels of a small image as they are; a larger one is scaled smoothly. */
function sharp(event: Event) {
  const image = event.currentTarget as HTMLImageElement;
  image.classList.toggle("pixels", image.naturalWidth <= 64);
}

export const mediaOf = ({ media }: Loaded, item: number): Medium[] => (media.at[item] ?? []).map((place) => media.media[place]);

/** What a list shows of an item: its first image if there is one. */
const pictured = (media: Medium[]): Medium | undefined => media.find((medium) => medium.kind === "image") ?? media[0];

/** The image or sound of an item; in a list, which is one of links, a sound is a sign only. */
export function Shows({ medium, large = false }: { medium: Medium | undefined; large?: boolean }) {
  const size = large ? "large" : "";
  if (medium?.kind === "audio")
    return large ? (
      <audio class="sound" src={medium.src} controls preload="none" aria-label="The sound of this item" />
    ) : (
      <span class="picture sign" role="img" aria-label="sound">
        ♪
      </span>
    );
  return medium ? <img class={`picture ${size}`} src={medium.src} alt="" loading="lazy" onLoad={sharp} /> : <span class={`picture none ${size}`} aria-hidden="true" />;
}

/** A line a method, a square a stage. */
function Lifeline({ items, item, shown }: { items: Items; item: number; shown: Shown[] }) {
  return (
    <span class="lines">
      {shown.map(({ method, run, number }) => {
        const place = items.runs.get(number);
        if (place === undefined) return null;
        const fates = Array.from({ length: run.last + 1 }, (_, stage) => square(items, item, place, stage));
        return (
          <span class="line">
            <Marker method={method} />
            <span class="name">{method.label}</span>
            <span class="squares" role="img" aria-label={`${method.label}: ${fates.join(", ")}`}>
              {fates.map((fate) => (
                <i class={`square ${fate}`} />
              ))}
            </span>
          </span>
        );
      })}
    </span>
  );
}

/** The fate at a stage; at the base whether the answer is right. */
export function square(items: Items, item: number, run: number, stage: number): Fate | "right" | "unknown" {
  if (stage) return fateAt(items, item, run, stage) ?? "unknown";
  return (["wrong", "right"] as const)[rightAt(items, item, run, 0)] ?? "unknown";
}
