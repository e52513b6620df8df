/** Which items a view of lifelines shows. */
import type { Experiment, Items, Method, Run } from "./data";
import { life, rightAt, type Life } from "./fate";
import type { Route } from "./route";

export const FILTERS: [key: string, text: string][] = [
  ["", "All items"],
  ["learned-lost", "Learned, then lost"],
  ["lost", "Right before, wrong at the end"],
  ["regained", "Lost, then regained"],
  ["never", "Never right"],
  ["always", "Always right"],
  ["a-not-b", "A right at the end, B lost it"],
  ["right", "Right after stage …"],
  ["wrong", "Wrong after stage …"],
];

/** Filters that ask something of every method where none is named; all others of any. */
const OF_EVERY = ["never", "always"];
/** Up to MOST methods are all shown; of more those without settings, or FEW. */
const [FEW, MOST] = [6, 12];

export interface Shown {
  method: Method;
  run: Run;
  /** Number of the run in the experiment. */
  number: number;
}

export const sequenceMethods = (experiment: Experiment) => experiment.methods.filter((one) => one.mode === "sequence");

/** The method that a view starts with: the package's own without settings, else the first of its kind, else any. */
export function firstMethod(methods: Method[]): Method | undefined {
  const own = methods.filter((one) => one.role === "reference");
  return own.find((one) => !one.method.includes(":")) ?? own[0] ?? methods[0];
}

/** The seeds of the sequence runs; the one that most methods have first. */
export function seeds(experiment: Experiment): number[] {
  const counts = new Map<number, number>();
  for (const run of experiment.runs) if (run.mode === "sequence") counts.set(run.seed, (counts.get(run.seed) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([seed]) => seed);
}

/** The methods that lifelines show: those named in the address, else the plain ones, as far as they fit. */
export function shownMethods(experiment: Experiment, route: Route): Method[] {
  const all = sequenceMethods(experiment);
  const asked = route.get("show");
  if (asked) {
    const places = new Set(asked.split(",").map(Number));
    return all.filter((_, place) => places.has(place));
  }
  const trained = all.filter((one) => one.role !== "base");
  if (trained.length <= MOST) return trained.length ? trained : all;
  const plain = trained.filter((one) => !one.method.includes(":") && one.order === "given");
  return [...plain, ...trained.filter((one) => !plain.includes(one))].slice(0, Math.max(FEW, Math.min(plain.length, MOST)));
}

export function shownRuns(experiment: Experiment, route: Route): Shown[] {
  const seed = Number(route.get("seed") || seeds(experiment)[0]);
  const named = [route.get("a"), route.get("b")].filter(Boolean);
  const methods = shownMethods(experiment, route);
  const extra = sequenceMethods(experiment).filter((one) => named.includes(one.label) && !methods.includes(one));
  return [...methods, ...extra].flatMap((method) => {
    const number = method.runs.find((run) => experiment.runs[run].seed === seed);
    return number === undefined ? [] : [{ method, run: experiment.runs[number], number }];
  });
}

const TESTS: Record<string, (life: Life) => boolean> = {
  "learned-lost": (one) => one.gained && one.end === 0,
  lost: (one) => one.ever && one.end === 0,
  regained: (one) => one.regained,
  never: (one) => !one.ever && one.end >= 0,
  always: (one) => one.always,
};

/** The places of the items that the settings of a view let pass. */
export function filtered(items: Items, shown: Shown[], route: Route): number[] {
  const [filter, kind, words] = [route.get("f"), route.get("kind"), route.get("q").trim().toLowerCase()];
  const passes = ofFate(items, shown, filter, route);
  const matches = words ? ofText(items, shown, words) : null;
  const found: number[] = [];
  for (let item = 0; item < items.ids.length; item++) {
    if (kind && items.kind[item] !== kind) continue;
    if (passes && !passes(item)) continue;
    if (matches && !matches(item)) continue;
    found.push(item);
  }
  return found;
}

function ofFate(items: Items, shown: Shown[], filter: string, route: Route): ((item: number) => boolean) | null {
  const [a, b] = [route.get("a"), route.get("b")];
  const places = (label: string) =>
    shown
      .filter((one) => !label || one.method.label === label)
      .map((one) => ({ place: items.runs.get(one.number) ?? -1, last: one.run.last }))
      .filter((one) => one.place >= 0);
  const lives = (item: number, label: string) => places(label).map((one) => life(items, item, one.place, one.last));
  if (!filter) return null;
  if (filter === "a-not-b") {
    const [first, second] = [places(a)[0], places(b)[0]];
    if (!a || !b || !first || !second) return () => false;
    return (item) => {
      if (life(items, item, first.place, first.last).end !== 1) return false;
      return TESTS.lost(life(items, item, second.place, second.last));
    };
  }
  if (filter === "right" || filter === "wrong") {
    const stage = Number(route.get("stage") || 0);
    const wanted = Number(filter === "right");
    const of = places(a);
    return (item) => of.some((one) => stage < items.stages && rightAt(items, item, one.place, stage) === wanted);
  }
  const test = TESTS[filter];
  if (!test) return null;
  const every = !a && OF_EVERY.includes(filter);
  return (item) => {
    const own = lives(item, a);
    return own.length > 0 && (every ? own.every(test) : own.some(test));
  };
}

/** Items whose question, reference or name, or an answer of a shown run, contains the words. */
function ofText(items: Items, shown: Shown[], words: string): (item: number) => boolean {
  const answers = Uint8Array.from([0, ...items.lower.map((one) => Number(one.includes(words)))]);
  const places = shown.map((one) => items.runs.get(one.number) ?? -1).filter((place) => place >= 0);
  return (item) => {
    if (items.text[item].includes(words)) return true;
    return places.some((place) => {
      const start = (item * items.runs.size + place) * items.stages;
      for (let stage = 0; stage < items.stages; stage++) if (answers[items.answer[start + stage]]) return true;
      return false;
    });
  };
}
