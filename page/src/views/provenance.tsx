/** What a cell rests on: command, versions, weights, files and digests. */
import { provenance } from "../data";
import { one } from "../format";
import type { ViewProps } from "../main";
import { changed, href } from "../route";
import { Choice, Copy, Facts, Section, useLoaded, Waiting } from "../ui/parts";

export function ProvenanceView({ experiment, number, route }: ViewProps) {
  const loaded = useLoaded(() => provenance(number), String(number));
  if (!loaded.value) return <Waiting title="Provenance" error={loaded.error} />;
  const { words, runs } = loaded.value;
  const place = Math.max(0, experiment.runs.findIndex((run) => run.name === route.get("run")));
  const [run, own] = [experiment.runs[place], runs[place]];
  const set = (changes: Record<string, string>) => (location.hash = changed(changes).slice(1));
  const cells = own.cells.filter(([, task]) => !route.get("t") || experiment.tasks[task].key === route.get("t"));
  const cell = cells.find(([stage]) => String(stage) === route.get("stage")) ?? cells[cells.length - 1];
  const pairs = (found: [number, number][]) => found.map(([name, value]) => [words[name], words[value]] as [string, string]);
  const command = words[own.command];
  const { cells: scores } = experiment;
  const at = cell ? scores.run.findIndex((one, i) => one === place && scores.stage[i] === cell[0] && scores.task[i] === cell[1]) : -1;
  const facts: [string, string][] = cell
    ? [
        ["score", `${one(scores.value[at])}${scores.stderr[at] === null ? "" : ` ±${one(scores.stderr[at])}`} (${scores.value[at]})`],
        ["items", scores.n[at]?.toLocaleString("en-US") ?? ""],
        ["predictions", words[cell[2]]],
        ["SHA-256 of the predictions", words[cell[3]]],
        ["scorer", words[cell[4]]],
        ["weights", words[cell[5]]],
        ...pairs(own.data[cell[1]]),
      ]
    : [];
  const task = cell ? experiment.tasks[cell[1]] : undefined;
  const about: [string, string][] = [["run", words[own.folder]], ["id", words[own.id]], ...pairs(own.sources), ...pairs(own.stages), ...pairs(own.versions)];
  const text = [...facts, ...about, ["command", command]].map(([name, value]) => `${name}: ${value}`).join("\n");
  const explain = cell && task ? `moextend bench explain ${run.name} ${cell[0]} ${task.key}` : "";
  return (
    <>
      <h1>Provenance</h1>
      <div class="controls">
        <Choice label="Run" value={run.name} options={experiment.runs.map((one) => [one.name, one.name])} onChange={(value) => set({ run: value })} />
        <Choice label="Task" value={task?.key ?? ""} options={experiment.tasks.map((one) => [one.key, one.name])} onChange={(t) => set({ t })} />
        <Choice label="After stage" value={cell?.[0] ?? 0} options={cells.map(([stage]) => stage).filter((stage, i, all) => all.indexOf(stage) === i).map((stage) => [stage, stage ? String(stage) : "0 (base)"])} onChange={(stage) => set({ stage })} />
        <Copy text={text} label="Copy all" />
      </div>
      {cell && task && (
        <Section id="cell" title={`${task.name} after stage ${cell[0]}`}>
          <Facts pairs={facts} class="facts" />
          {task.items > 0 && run.mode === "sequence" && (
            <p>
              <a href={href("items", { x: number || null, t: task.key, seed: run.seed })}>Its items</a>
            </p>
          )}
        </Section>
      )}
      <Section id="command" title="Make it again">
        <pre class="command">
          <code>{command}</code>
          <Copy text={command} />
        </pre>
        {explain && (
          <pre class="command">
            <code>{explain}</code>
            <Copy text={explain} />
          </pre>
        )}
      </Section>
      <Section id="run" title="The run">
        <Facts pairs={about} class="facts" />
      </Section>
    </>
  );
}
