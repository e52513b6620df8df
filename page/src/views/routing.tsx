/** Where tokens go, layer by layer, and how that drifts after a task was learned. */
import { routing } from "../data";
import { one } from "../format";
import type { ViewProps } from "../main";
import { firstMethod } from "../filter";
import { changed } from "../route";
import { Choice, Empty, Section, useLoaded, Waiting } from "../ui/parts";
import { MethodName } from "../ui/marker";

export function Routing({ experiment, number, route }: ViewProps) {
  const loaded = useLoaded(() => routing(number), String(number));
  if (!loaded.value) return <Waiting title="Routing" error={loaded.error} />;
  const known = loaded.value.filter((own) => own.stages.some((stage) => stage.tasks.length));
  if (!known.length) return <Empty title="Routing">Of no run it is known how it routes.</Empty>;
  const name = (run: number) => experiment.runs[run].name;
  const reaching = known.filter((own) => own.stages.some((stage) => stage.tasks.some((task) => task.reached.length)));
  const first = firstMethod(experiment.methods.filter((own) => reaching.some(({ run }) => own.runs.includes(run))));
  const run = known.find((own) => name(own.run) === route.get("run")) ?? reaching.find((own) => first?.runs.includes(own.run)) ?? known[0];
  const stage = run.stages.find((own) => String(own.stage) === route.get("stage")) ?? run.stages[run.stages.length - 1];
  const set = (changes: Record<string, string>) => (location.hash = changed(changes).slice(1));
  const method = experiment.methods.find((own) => own.runs.includes(run.run));
  const layers = Math.max(0, ...stage.tasks.flatMap((task) => [task.drift?.length ?? 0, ...task.reached.map(([, parts]) => parts.length)]));
  const drifts = stage.tasks.filter((task) => task.drift);
  const largest = Math.max(1e-9, ...drifts.flatMap((task) => task.drift ?? []));
  return (
    <>
      <h1>Routing</h1>
      <div class="controls">
        <Choice label="Run" value={name(run.run)} options={known.map((own) => [name(own.run), name(own.run)])} onChange={(value) => set({ run: value })} />
        <Choice label="After stage" value={stage.stage} options={run.stages.map((own) => [own.stage, String(own.stage)])} onChange={(value) => set({ stage: value })} />
        <MethodName method={method} />
      </div>
      <Section id="reached" title="Tokens that reach the new experts, % by layer">
        {stage.tasks.some((task) => task.reached.length) ? (
          <Heat
            title="Tokens that reach the new experts"
            layers={layers}
            rows={stage.tasks.flatMap((task) => task.reached.map(([extension, parts]) => ({ names: [task.task, extension], values: parts.map((part) => (part === null ? null : 100 * part)) })))}
            heads={["task", "experts of"]}
            most={100}
            color="var(--gain)"
          />
        ) : (
          <p class="muted">This method adds no experts.</p>
        )}
      </Section>
      <Section id="drift" title="Drift since the task was learned, thousandths of a nat by layer">
        {drifts.length ? (
          <Heat title="Drift" layers={layers} rows={drifts.map((task) => ({ names: [task.task], values: (task.drift ?? []).map((value) => 1000 * value) }))} heads={["task"]} most={1000 * largest} color="var(--loss)" />
        ) : (
          <p class="muted">No task was learned before this stage.</p>
        )}
      </Section>
      {stage.oracle.length > 0 && (
        <Section id="oracle" title="Oracle gap">
          <p>What the score would be with the task's own extension forced on.</p>
          <table class="data">
            <caption class="hidden">Score as it is, and with the own extension</caption>
            <thead>
              <tr>
                {["task", "as it is", "own extension", "gap"].map((title, place) => (
                  <th scope="col" class={place ? "number" : ""}>
                    {title}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {stage.oracle.map(([task, forced, value]) => (
                <tr>
                  <th scope="row">{task}</th>
                  <td class="number">{one(value)}</td>
                  <td class="number">{one(forced)}</td>
                  <td class="number">{forced !== null && value !== null ? one(forced - value) : "-"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Section>
      )}
      {stage.inferred.length > 0 && (
        <Section id="inferred" title="Task inference: inputs that reach each extension, %">
          <Inferred rows={stage.inferred} />
        </Section>
      )}
    </>
  );
}

interface HeatProps {
  title: string;
  layers: number;
  rows: { names: string[]; values: (number | null)[] }[];
  heads: string[];
  most: number;
  color: string;
}

function Heat({ title, layers, rows, heads, most, color }: HeatProps) {
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label={title}>
      <table class="data heat">
        <caption class="hidden">{title}</caption>
        <thead>
          <tr>
            {heads.map((head) => (
              <th scope="col">{head}</th>
            ))}
            {[...Array(layers).keys()].map((layer) => (
              <th scope="col" class="number">
                {layer}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(({ names, values }) => (
            <tr>
              {names.map((name, place) => (place ? <td>{name}</td> : <th scope="row">{name}</th>))}
              {values.map((value) => (
                <td class="number" style={value === null ? undefined : { "--tint": `color-mix(in srgb, ${color} ${Math.round((60 * value) / most)}%, transparent)` }}>
                  {one(value)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Inferred({ rows }: { rows: [string, [string, number][]][] }) {
  const names = [...new Set(rows.flatMap(([, reached]) => reached.map(([name]) => name)))];
  const heat = rows.map(([task, reached]) => {
    const known = new Map(reached);
    return { names: [task], values: names.map((name) => 100 * (known.get(name) ?? 0)) };
  });
  return (
    <>
      <p class="muted">Columns: {names.map((name, place) => `${place} ${name || "none (the base)"}`).join(", ")}.</p>
      <Heat title="Task inference" layers={names.length} rows={heat} heads={["task"]} most={100} color="var(--gain)" />
    </>
  );
}
