/** The records of the page as bench/report/page/data.py writes them, and how parts are loaded. */

export type TextValue = [text: string, number?: number | null, spread?: number | null, style?: string | null];

export interface TableView {
  key: string;
  title: string;
  columns: { key: string; title: string; numeric: boolean; wide: boolean }[];
  sections: TextValue[][][];
  notes: string[];
}

export interface Task {
  /** Names it in addresses and commands. */
  key: string;
  /** What is shown. */
  name: string;
  role: "learned" | "text" | "transfer";
  part: string;
  items: number;
  /** Items that show or play something. */
  media: number;
  lacks: string;
  kinds: string[];
  /** Template of what is asked; empty for text tasks. */
  prompt: string;
}

export interface Method {
  label: string;
  method: string;
  order: string;
  mode: "sequence" | "joint" | "independent";
  role: string | null;
  identity: string;
  /** Whether it has the highest ACC of those that know as much of the task. */
  best: boolean;
  color: string;
  marker: string;
  filled: boolean;
  runs: number[];
  last: number;
  tasks: number[];
  means: [stage: number, task: number, mean: number, sd: number | null][];
}

export interface Run {
  name: string;
  seed: number;
  order: string;
  mode: string;
  state: string;
  last: number;
  tasks: number[];
}

export interface Experiment {
  name: string;
  title: string;
  verdict: string[];
  tasks: Task[];
  methods: Method[];
  runs: Run[];
  cells: { run: number[]; stage: number[]; task: number[]; value: number[]; stderr: (number | null)[]; n: number[] };
  summary: TableView;
  /** With the best of each group; the first one is with the baseline that was asked for. */
  comparisons: (TableView & { baseline: string })[];
  /** Of orders, of scaled models (--also rewind), and of models without some stages (--also subsets). */
  further: TableView[];
  costs: TableView;
  readings: TableView[];
}

interface Report {
  experiments: Experiment[];
  published: TableView[];
}

/** The first view of a leaderboard. */
export interface Site {
  sequences: {
    /** Names it in addresses. */
    key: string;
    /** How it differs from another of the same name. */
    differs: string;
    tasks: string[];
    methods: number;
    best: Record<string, [label: string, acc: string]>;
    seeds: number[];
    made: string;
  }[];
  methods: { name: string; description: string; source: string; at: number[]; identities: string[] }[];
  history: { made: string; at: number; packs: string[]; methods: string[]; seeds: number[]; version: string; commit: string }[];
}

/** Where the numbers of the runs of an experiment are from. */
export interface Provenance {
  runs: {
    id: string;
    made: string;
    source: string;
    command: string;
    environments: number[];
    of: number;
    models: Record<string, string>;
    settings: Record<string, string>;
    metrics: Record<string, number | null>;
    stated: Record<string, string>;
    costs: [stage: string, ...(number | null)[]][];
  }[];
  costs: string[];
  environments: Record<string, string>[];
  made: Record<string, string>[];
}

interface Interned {
  words: string[];
  at: number[];
}

interface Packed {
  width: 1 | 2 | 4;
  data: string;
}

interface ItemsPart {
  ids: string[];
  question: Interned;
  reference: Interned;
  choices: Interned;
  kind: Interned;
  group: Interned;
  runs: number[];
  stages: number;
  answers: string[];
  scores: (number | null)[];
  right: (boolean | null)[];
  answer: Packed;
  score: Packed;
}

export interface Medium {
  kind: "image" | "audio";
  /** A URL that holds it, or a file beside the page. */
  src: string;
}

/** What the items of a task show: item -> places in `media`. */
export interface Media {
  at: number[][];
  media: Medium[];
}

interface Flips {
  fates: string[];
  rows: number[][]; // task, run, stage, items by fate, p
}

interface RunRoutes {
  run: number;
  stages: {
    stage: number;
    layers: number[] | null;
    tasks: { task: string; reached: [string, (number | null)[]][]; drift: number[] | null }[];
    oracle: [string, number | null, number | null][];
    inferred: [string, [string, number][]][];
  }[];
}

/** The items of a task, ready to be looked at. */
export interface Items {
  ids: string[];
  question: string[];
  reference: string[];
  choices: string[];
  kind: string[];
  group: string[];
  places: Map<string, number>;
  /** Number of a run in the experiment -> its place in the columns. */
  runs: Map<number, number>;
  stages: number;
  answers: string[];
  lower: string[];
  scores: (number | null)[];
  /** Score's code -> 1 right, 0 wrong, -1 not known. */
  right: Int8Array;
  answer: ArrayLike<number>;
  score: ArrayLike<number>;
  /** Question, reference and id in small letters, for the search. */
  text: string[];
}

declare global {
  interface Window {
    moextendPart?: (name: string, value: string) => void;
  }
}

/** The version of this page where it comes from moextend bench serve; null elsewhere. */
export const shown = JSON.parse(document.getElementById("part-live")?.textContent ?? "null") as string | null;

/** What a leaderboard begins with; null for a report. */
export const site = JSON.parse(document.getElementById("part-site")?.textContent ?? "null") as Site | null;

const loaded = new Map<string, Promise<unknown>>();
const waiting = new Map<string, (value: unknown) => void>();
/** A file beside the page hands over its JSON, compressed. */
window.moextendPart = (name, value) => waiting.get(name)?.(inflated(value).then((raw) => JSON.parse(new TextDecoder().decode(raw)) as unknown));

/** A part by name: from the page itself, or from a file beside it; a script, as pages on a disk may fetch nothing. */
function part<T>(name: string): Promise<T> {
  let found = loaded.get(name);
  if (!found) {
    const element = document.getElementById(`part-${name}`);
    found = element ? Promise.resolve(JSON.parse(element.textContent ?? "null")) : script(name);
    loaded.set(name, found);
  }
  return found as Promise<T>;
}

function script(name: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    waiting.set(name, resolve);
    const element = document.createElement("script");
    element.src = `parts/${name}.js`;
    element.onerror = () => reject(new Error(`The file parts/${name}.js is missing. Keep the folder together.`));
    document.head.append(element);
  });
}

let current: Report | null = null;

export function report(): Report {
  current ??= (JSON.parse(document.getElementById("part-report")?.textContent ?? "null") as Report | null) ?? { experiments: [], published: [] };
  return current;
}

/** An experiment of the report, or of a leaderboard, which loads them one by one. */
export const experiment = (number: number): Promise<Experiment> => (site ? part<Experiment>(`e${number}`) : Promise.resolve(report().experiments[number]));
export const provenance = (experiment: number) => part<Provenance>(`e${experiment}.runs`);
export const flips = (experiment: number) => part<Flips>(`e${experiment}.flips`);
export const routing = (experiment: number) => part<RunRoutes[]>(`e${experiment}.routing`);
export const media = (task: Task): Promise<Media> => (task.media ? part<Media>(`${task.part}.media`) : Promise.resolve({ at: [], media: [] }));

const made = new Map<string, Promise<Items>>();

export function items(task: Task): Promise<Items> {
  let found = made.get(task.part);
  if (!found) made.set(task.part, (found = part<ItemsPart>(task.part).then(opened)));
  return found;
}

async function opened(from: ItemsPart): Promise<Items> {
  const [answer, score] = await Promise.all([unpacked(from.answer), unpacked(from.score)]);
  const words = (one: Interned) => one.at.map((place) => one.words[place]);
  const [question, reference] = [words(from.question), words(from.reference)];
  return {
    ids: from.ids,
    question,
    reference,
    choices: words(from.choices),
    kind: words(from.kind),
    group: words(from.group),
    places: new Map(from.ids.map((id, place) => [id, place])),
    runs: new Map(from.runs.map((run, place) => [run, place])),
    stages: from.stages,
    answers: from.answers,
    lower: from.answers.map((one) => one.toLowerCase()),
    scores: from.scores,
    right: Int8Array.from([-1, ...from.right.map((one) => (one === null ? -1 : Number(one)))]),
    answer,
    score,
    text: from.ids.map((id, i) => `${id}\n${question[i]}\n${reference[i]}`.toLowerCase()),
  };
}

async function unpacked(packed: Packed): Promise<ArrayLike<number>> {
  const raw = await inflated(packed.data);
  if (packed.width === 1) return new Uint8Array(raw);
  return packed.width === 2 ? new Uint16Array(raw) : new Uint32Array(raw);
}

function inflated(base64: string): Promise<ArrayBuffer> {
  const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
}
