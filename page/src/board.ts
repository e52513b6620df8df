/** The rows of the forgetting table in groups of what methods know of the task, each against the best of its group. */
import { site, type Experiment, type Method, type TableView, type TextValue } from "./data";
import { href, named, type Route } from "./route";
import { bare } from "./ui/table";

/** What a method knows of the task of an input -> how a group of rows is called. */
export const IDENTITIES: Record<string, string> = {
  given: "Task id given",
  inferred: "Task id inferred",
  none: "No task id",
  "?": "Task id not recorded",
};
const AGAINST = "against the best";
const MEANING = `${AGAINST}: what a paired test over seeds and items says of ACC against the row with the highest ACC among those that know as much of the task, which was chosen by the same numbers. The differences below have the intervals, and the other metrics.`;

interface Board {
  table: TableView;
  labels: string[];
  /** Rows of methods, and those that pass the filters. */
  total: number;
  shown: number;
}

/** The leader of the group of a method. */
export const bestOf = (experiment: Experiment, method: Method) => experiment.methods.find((one) => one.best && one.identity === method.identity);

/** Where a row of a table leads: to what its numbers rest on. */
export function toRow(experiment: Experiment, number: number): (label: string) => string | undefined {
  const known = new Set(experiment.methods.map((one) => one.label));
  return (label) => (known.has(label) ? href("row", { x: named(number), m: label }) : undefined);
}

/** The rows that pass: of a group, with words in their names, with enough seeds. */
export function board(experiment: Experiment, filters: Pick<Route, "get">): Board {
  const { summary, methods } = experiment;
  const at = (key: string) => summary.columns.findIndex((one) => one.key === key);
  const [acc, runs, identity] = [at("acc"), at("runs"), at("task_id")];
  const byLabel = new Map(methods.map((one) => [one.label, one]));
  const [group, words, least] = [filters.get("g"), filters.get("q").trim().toLowerCase().split(/\s+/), Number(filters.get("n")) || 0];
  const rows = summary.sections[summary.sections.length - 1];
  const own = (row: TextValue[]) => byLabel.get(bare(row[0][0]));
  const passing = rows.filter((row) => (!group || own(row)?.identity === group) && (row[runs][1] ?? 0) >= least && words.every((word) => row[0][0].toLowerCase().includes(word)));
  const verdicts = new Map(methods.map((one) => [one.label, verdictOf(experiment, one)]));
  const cut = (row: TextValue[]): TextValue[] => row.flatMap((value, place): TextValue[] => (place === identity ? [] : place === acc ? [value, verdicts.get(bare(row[0][0])) ?? [""]] : [value]));
  const bounds = summary.sections.length > 1 && !group && words[0] === "" ? [["References", summary.sections[0]] as const] : [];
  const groups = Object.entries(IDENTITIES).map(([key, title]) => [title, passing.filter((row) => (own(row)?.identity ?? "?") === key)] as const);
  const ranked = (part: TextValue[][]) => (site ? [...part].sort((a, b) => (b[acc][1] ?? -1) - (a[acc][1] ?? -1)) : part);
  const sections = [...bounds, ...groups.map(([title, part]) => [title, ranked(part)] as const)].filter(([, part]) => part.length);
  const columns = summary.columns.map((one, place) => (place === runs ? { ...one, wide: false } : one));
  columns.splice(acc + 1, 0, { key: "verdict", title: AGAINST, numeric: false, wide: false });
  columns.splice(identity, 1);
  return {
    table: { ...summary, columns, sections: sections.map(([, part]) => part.map(cut)), notes: [...summary.notes, MEANING] },
    labels: sections.map(([title]) => title),
    total: rows.length,
    shown: passing.length,
  };
}

function verdictOf(experiment: Experiment, method: Method): TextValue {
  const best = bestOf(experiment, method);
  if (best === method) return ["best", null, null, "bold"];
  const table = experiment.comparisons.find((one) => one.baseline === best?.label);
  if (!table) return [""];
  const [metric, verdict] = ["metric", "verdict"].map((key) => table.columns.findIndex((one) => one.key === key));
  const row = table.sections.flat().find((one) => bare(one[0][0]) === method.label && one[metric][0] === "ACC");
  return row?.[verdict] ?? [""];
}
