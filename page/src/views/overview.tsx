/** The verdict, and a row a method. */
import { useState } from "preact/hooks";
import { board, IDENTITIES, toRow } from "../board";
import { report, site, type Experiment } from "../data";
import { plural } from "../format";
import type { ViewProps } from "../main";
import { replace } from "../route";
import { Choice, Search, Section } from "../ui/parts";
import { bare, breakable, Notes, Table } from "../ui/table";
import { MethodName } from "../ui/marker";

export function Overview({ experiment, number, route }: ViewProps) {
  const [wide, setWide] = useState(false);
  const { table, labels, total, shown } = board(experiment, route);
  const marked = experiment.summary.sections.flat(2).some((value) => value[3] === "bold");
  const link = toRow(experiment, number);
  const most = Math.max(1, ...experiment.methods.map((one) => one.runs.length));
  const groups = Object.entries(IDENTITIES).filter(([key]) => experiment.methods.some((one) => one.identity === key));
  return (
    <>
      <div class="verdict">
        <h1 class="sr">Summary</h1>
        {experiment.verdict.map((text) => (
          <p>{breakable(text)}</p>
        ))}
        {!experiment.verdict.length && <p>No method ran over the whole sequence yet.</p>}
      </div>
      <Section id="methods" title="Methods">
        <div class="controls" role="search">
          <Choice label="Task id" value={route.get("g")} options={[["", "All"], ...groups]} onChange={(g) => replace({ g })} />
          <Choice label="Seeds" value={route.get("n")} options={[["", "Any number"], ...[...Array(most).keys()].slice(1).map((n) => [n + 1, `At least ${n + 1}`] as [number, string])]} onChange={(n) => replace({ n })} />
          <Search label="Search" about="method, setting" value={route.get("q")} onChange={(q) => replace({ q })} />
          <label class="check">
            <input type="checkbox" checked={wide} onChange={(event) => setWide(event.currentTarget.checked)} /> All columns
          </label>
          <p class="legend" aria-live="polite">
            {shown < total ? `${shown} of ${plural(total, "row")}` : marked ? table.notes[0] : ""}
          </p>
        </div>
        <Table table={table} methods={experiment.methods} wide={wide} labels={labels} link={link} />
        <Notes notes={table.notes} />
      </Section>
      {experiment.comparisons.length > 0 && <Differences experiment={experiment} number={number} />}
      {[...experiment.further, ...(site ? [] : report().published)].map((own) => (
        <Section id={own.key} title={own.title}>
          <Table table={own} methods={experiment.methods} link={link} />
          <Notes notes={own.notes} />
        </Section>
      ))}
    </>
  );
}

/** Paired differences with their intervals, one metric at a time. */
function Differences({ experiment, number }: { experiment: Experiment; number: number }) {
  const [against, setAgainst] = useState(experiment.comparisons[0].baseline);
  const table = experiment.comparisons.find((one) => one.baseline === against) ?? experiment.comparisons[0];
  const link = toRow(experiment, number);
  const at = (key: string) => table.columns.findIndex((one) => one.key === key);
  const [method, metric, difference, interval, low, high, verdict] = ["method", "metric", "difference", "interval", "low", "high", "verdict"].map(at);
  const metrics = [...new Set(table.sections.flat().map((row) => row[metric][0]))];
  const [chosen, setChosen] = useState(metrics.includes("ACC") ? "ACC" : metrics[0]);
  const rows = table.sections.flat().filter((row) => row[metric][0] === chosen);
  const ends = rows.flatMap((row) => [row[low][1], row[high][1], row[difference][1]]).filter((one): one is number => typeof one === "number");
  const most = Math.min(60, Math.max(1, ...ends.map(Math.abs)));
  const x = (value: number) => 150 + (145 * Math.max(-most, Math.min(most, value))) / most;
  const byLabel = new Map(experiment.methods.map((one) => [one.label, one]));
  return (
    <Section id="differences" title={table.title.replace(/^.*: d/, "D")}>
      <div class="controls">
        {experiment.comparisons.length > 1 && (
          <Choice label="Against" value={against} options={experiment.comparisons.map((one) => [one.baseline, one.baseline])} onChange={setAgainst} />
        )}
        <Choice label="Metric" value={chosen} options={metrics.map((one) => [one, one])} onChange={setChosen} />
        <p class="legend">Axis: ±{most.toFixed(0)} points. Intervals count seeds and items, for all tests of the metric together.</p>
      </div>
      <div class="scroll" tabIndex={0} role="group" aria-label={table.title}>
        <table class="data forest">
          <caption class="hidden">
            {table.title}, {chosen}
          </caption>
          <thead>
            <tr>
              {["method", "difference", "", "95% interval", "verdict"].map((title) => (
                <th scope="col" class={title === "difference" ? "number" : ""}>
                  {title || <span class="sr">drawn</span>}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => {
              const own = byLabel.get(bare(row[method][0]));
              const [from, to, middle] = [row[low][1], row[high][1], row[difference][1]];
              return (
                <tr>
                  <th scope="row">
                    <MethodName method={own} name={<a href={link(bare(row[method][0]))}>{breakable(row[method][0])}</a>} />
                  </th>
                  <td class="number">{row[difference][0]}</td>
                  <td class="drawn">
                    <svg viewBox="0 0 300 18" width="300" height="18" aria-hidden="true">
                      <line x1="150" x2="150" y1="0" y2="18" class="axis" />
                      {typeof from === "number" &&
                        typeof to === "number" &&
                        ["var(--ring)", own?.color ?? "gray"].map((stroke, top) => <line x1={x(from)} x2={x(to)} y1="9" y2="9" style={{ stroke, strokeWidth: top ? 2.5 : 4 }} />)}
                      {typeof middle === "number" && <circle cx={x(middle)} cy="9" r="4.5" fill={own?.color ?? "gray"} style={{ stroke: "var(--ring)" }} />}
                    </svg>
                  </td>
                  <td>{row[interval][0]}</td>
                  <td class={row[verdict][3] ?? ""}>{row[verdict][0]}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
      <Notes notes={table.notes} />
    </Section>
  );
}
