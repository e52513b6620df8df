/** What the numbers of a row rest on: its runs, seeds, settings, versions, hardware, command, costs, and full matrix. */
import { bestOf, IDENTITIES, toRow } from "../board";
import { provenance, site, type Experiment, type Method, type Provenance, type TableView, type TextValue } from "../data";
import { one, signed } from "../format";
import type { ViewProps } from "../main";
import { href, named } from "../route";
import { Copy, Empty, Facts, Section, useLoaded, Waiting } from "../ui/parts";
import { bare, breakable, Notes, Table } from "../ui/table";
import { MethodName } from "../ui/marker";
import { Grid, ofMethod } from "./matrix";

type Run = Provenance["runs"][number];

/** Titles of the costs of a stage, and what a number is divided by. */
const COSTS: Record<string, [title: string, unit: number]> = {
  trained_parameters: ["trained", 1],
  flops: ["TFLOP", 1e12],
  tokens: ["tokens", 1],
  kept_mb: ["MB kept", 1],
  seconds: ["seconds", 1],
  peak_rss_mb: ["peak MiB", 1],
  peak_gpu_mb: ["GPU MiB", 1],
};

export function Row({ experiment, number, route }: ViewProps) {
  const loaded = useLoaded(() => provenance(number), String(number));
  const method = experiment.methods.find((own) => own.label === route.get("m"));
  if (!method) return <Empty title="Row">{`No row is called “${route.get("m")}”.`}</Empty>;
  if (!loaded.value) return <Waiting title={method.label} error={loaded.error} />;
  const { value } = loaded;
  const runs = method.runs.map((run) => value.runs[run]);
  const seeds = method.runs.map((run) => experiment.runs[run].seed);
  const [first] = runs;
  const environments = [...new Set(runs.flatMap((run) => run.environments))];
  const of = (has: (run: Run) => boolean) => seeds.filter((_, place) => has(runs[place])).join(", ");
  const task = experiment.tasks.find((own) => own.items > 0);
  const name = method.method.split(":")[0];
  return (
    <>
      <h1>
        <MethodName method={method} name={breakable(method.label)} />
      </h1>
      <p class="lead">
        {IDENTITIES[method.identity]}.
        {site && (
          <>
            {" "}
            <a href={href("method", { m: name })}>All rows of {name}</a>.
          </>
        )}
        {task && method.mode === "sequence" && (
          <>
            {" "}
            <a href={href("items", { x: named(number), a: method.label, seed: seeds[0] })}>Its items</a>.
          </>
        )}
      </p>
      <Section id="runs" title="Runs">
        <Table table={ofRuns(experiment, method, runs)} />
      </Section>
      <Verdicts experiment={experiment} method={method} number={number} />
      <Grid experiment={experiment} number={number} method={method} cells={ofMethod(method)} change={false} />
      <p>
        <a href={href("matrix", { x: named(number), m: method.label, run: "each" })}>The matrix of every run</a>
      </p>
      <Section id="settings" title="Settings">
        <Facts pairs={[["Source", [...new Set(runs.map((run) => run.source))].join(", ")], ...Object.entries(first.settings), ...Object.entries(first.stated).map(([key, text]) => [`${key} (stated, not measured)`, text] as [string, string])]} />
      </Section>
      <Section id="again" title="Make it again">
        {runs.map((run) => (
          <div class="command">
            <code>{run.command}</code>
            <Copy text={run.command} />
          </div>
        ))}
      </Section>
      <Section id="made" title="Made with">
        {environments.map((place) => (
          <>
            {environments.length > 1 && <h3>Seeds {of((run) => run.environments.includes(place))}</h3>}
            <Facts pairs={Object.entries(value.environments[place])} />
          </>
        ))}
        <details>
          <summary>Models, data and code</summary>
          <Facts pairs={[...Object.entries(first.models).filter(([key]) => key !== "settings"), ...Object.entries(value.made[first.of])]} />
        </details>
      </Section>
      <Costs experiment={experiment} method={method} />
      <details>
        <summary>Costs of every stage</summary>
        <Table table={ofCosts(value, runs, seeds)} />
      </details>
    </>
  );
}

const column = (key: string, title: string, numeric = true) => ({ key, title, numeric, wide: false });

/** A row a run: its metrics, when it was made, and its id. */
function ofRuns(experiment: Experiment, method: Method, runs: Run[]): TableView {
  const metrics = Object.keys(runs[0].metrics);
  const rows = runs.map((run, place): TextValue[] => {
    const { seed, state, name } = experiment.runs[method.runs[place]];
    const numbers = metrics.map((key): TextValue => [["LA", "ACC"].includes(key) ? one(run.metrics[key]) : signed(run.metrics[key]), run.metrics[key]]);
    return [[`seed ${seed}`, seed], ...numbers, [run.made.slice(0, 16).replace("T", " ")], [run.id], [state === "done" ? name : `${name} (${state})`]];
  });
  const columns = [column("seed", "run", false), ...metrics.map((key) => column(key, key)), column("made", "made", false), column("id", "id", false), column("name", "folder", false)];
  return { key: "runs", title: `Runs of ${method.label}`, columns, sections: [rows], notes: [] };
}

/** A row a stage of every run. */
function ofCosts(value: Provenance, runs: Run[], seeds: number[]): TableView {
  const known = value.costs.map((key, place) => [key, place] as const).filter(([, place]) => runs.some((run) => run.costs.some((row) => row[place + 1] !== null)));
  const rows = runs.flatMap((run, place) =>
    run.costs.map((row, stage): TextValue[] => [
      [`seed ${seeds[place]}, stage ${stage + 1}: ${row[0]}`],
      ...known.map(([key, at]): TextValue => {
        const own = row[at + 1];
        return typeof own === "number" ? [(own / COSTS[key][1]).toLocaleString("en-US", { maximumFractionDigits: 3 }), own] : ["-"];
      }),
    ]),
  );
  return { key: "stages", title: "Costs of every stage", columns: [column("stage", "stage", false), ...known.map(([key]) => column(key, COSTS[key][0]))], sections: [rows], notes: [] };
}

/** The row of the method in a table, with all columns. */
const cut = (table: TableView, method: Method): TableView => ({ ...table, sections: [table.sections.flat().filter((row) => bare(row[0][0]) === method.label)] });

/** Its tests against the best of its group; of the best the group's size. */
function Verdicts({ experiment, method, number }: { experiment: Experiment; method: Method; number: number }) {
  const best = bestOf(experiment, method);
  const table = experiment.comparisons.find((own) => own.baseline === best?.label);
  if (!best || !table || method.mode !== "sequence") return null;
  if (best === method) {
    const others = experiment.methods.filter((own) => own.mode === "sequence" && own.identity === method.identity && own !== method && own.role !== "base").length;
    return <p>{others ? `The highest ACC of ${others + 1} rows that know as much of the task.` : "No other row knows as much of the task."}</p>;
  }
  const own = cut(table, method);
  if (!own.sections[0].length) return null;
  const columns = own.columns.slice(1);
  const link = toRow(experiment, number)(best.label);
  return (
    <Section id="verdicts" title="Against the best of its group">
      <p>
        The best is <a href={link}>{best.label}</a>. Differences are this row less the best.
      </p>
      <Table table={{ ...own, columns, sections: own.sections.map((rows) => rows.map((row) => row.slice(1))) }} />
      <Notes notes={table.notes} />
    </Section>
  );
}

function Costs({ experiment, method }: { experiment: Experiment; method: Method }) {
  const own = cut(experiment.costs, method);
  if (!own.sections[0].length || method.mode !== "sequence") return null;
  return (
    <Section id="costs" title="Costs">
      <Table table={own} wide />
      <Notes notes={own.notes} />
    </Section>
  );
}
