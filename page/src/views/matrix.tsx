/** The accuracy matrix of every method or run; a cell leads to its items. */
import type { Experiment, Method } from "../data";
import { one, signed } from "../format";
import type { ViewProps } from "../main";
import { changed, href, named } from "../route";
import { Choice } from "../ui/parts";
import { MethodName } from "../ui/marker";

interface CellValue {
  value: number;
  spread: number | null;
  n?: number;
}

type Matrix = Map<string, CellValue>;

export function Matrices({ experiment, number, route }: ViewProps) {
  const [wanted, shown, base] = [route.get("m"), route.get("v") || "score", route.get("run")];
  const set = (changes: Record<string, string>) => (location.hash = changed(changes).slice(1));
  const methods = experiment.methods.filter((own) => !wanted || own.label === wanted);
  return (
    <>
      <h1>Matrices</h1>
      <div class="controls">
        <Choice label="Method" value={wanted} options={[["", "All methods"], ...experiment.methods.map((own) => [own.label, own.label] as [string, string])]} onChange={(m) => set({ m })} />
        <Choice label="Runs" value={base} options={[["", "Mean over seeds"], ["each", "Every run"]]} onChange={(run) => set({ run })} />
        <Choice label="Numbers" value={shown} options={[["score", "Score, %"], ["change", "Change from the base"]]} onChange={(v) => set({ v })} />
        <p class="legend">
          Row: after this stage. Outlined: the task just learned. Hatched: learned later. A cell leads to its items; arrow keys go from cell to cell.
        </p>
      </div>
      {methods.map((method) =>
        base
          ? method.runs.map((run) => <Grid key={`${method.label} ${run}`} experiment={experiment} number={number} method={method} run={run} cells={ofRun(experiment, run)} change={shown === "change"} />)
          : [<Grid key={method.label} experiment={experiment} number={number} method={method} cells={ofMethod(method)} change={shown === "change"} />],
      )}
    </>
  );
}

export function ofMethod(method: Method): Matrix {
  return new Map(method.means.map(([stage, task, value, spread]) => [`${stage} ${task}`, { value, spread }]));
}

function ofRun(experiment: Experiment, run: number): Matrix {
  const { cells } = experiment;
  const found: Matrix = new Map();
  cells.run.forEach((own, i) => {
    if (own === run) found.set(`${cells.stage[i]} ${cells.task[i]}`, { value: cells.value[i], spread: cells.stderr[i], n: cells.n[i] });
  });
  return found;
}

interface GridProps {
  experiment: Experiment;
  number: number;
  method: Method;
  run?: number;
  cells: Matrix;
  change: boolean;
}

export function Grid({ experiment, number, method, run, cells, change }: GridProps) {
  const learned = method.tasks;
  const others = experiment.tasks.map((_, place) => place).filter((place) => !learned.includes(place));
  const tasks = [...learned, ...others].filter((place) => [...Array(method.last + 1).keys()].some((stage) => cells.has(`${stage} ${place}`)));
  const name = (stage: number) => (stage === 0 ? "base" : method.mode === "joint" ? "all at once" : experiment.tasks[learned[stage - 1]]?.name);
  const single = run !== undefined ? experiment.runs[run] : undefined;
  const title = single ? `${method.label}, seed ${single.seed}${single.state === "done" ? "" : ` (${single.state})`}` : method.label;
  return (
    <section class="matrix">
      <h2>
        <MethodName method={method} name={title} />
        {!single && <span class="muted small-text"> {method.runs.length === 1 ? "1 run" : `mean of ${method.runs.length} runs`}</span>}
      </h2>
      <div class="scroll" tabIndex={0} role="group" aria-label={title}>
        <table class="data heat">
          <caption class="hidden">{title}: score of each task after each stage</caption>
          <thead>
            <tr>
              <th scope="col">after stage</th>
              {tasks.map((place) => (
                <th scope="col" class={`number${learned.includes(place) ? "" : " other"}`}>
                  {experiment.tasks[place].name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {[...Array(method.last + 1).keys()].map((stage) => (
              <tr>
                <th scope="row">
                  {stage} {name(stage)}
                </th>
                {tasks.map((place) => {
                  const cell = cells.get(`${stage} ${place}`);
                  if (!cell) return <td class="number muted">-</td>;
                  const first = cells.get(`0 ${place}`);
                  const off = first ? cell.value - first.value : null;
                  const own = method.mode === "joint" ? -1 : learned.indexOf(place) + 1;
                  const state = own === stage && stage ? "own" : own > stage && stage ? "future" : "";
                  const text = change ? signed(off) : one(cell.value);
                  const spread = cell.spread === null || change ? null : one(cell.spread);
                  const about = `${experiment.tasks[place].name} after stage ${stage}: ${text}${spread === null ? "" : ` ±${spread}`}${single && cell.n ? `, ${cell.n} items` : ""}`;
                  const seed = single?.seed ?? experiment.runs[method.runs[0]].seed;
                  const items = experiment.tasks[place].items > 0 && method.mode === "sequence";
                  const content = (
                    <>
                      {text}
                      {spread !== null && <span class="spread"> ±{spread}</span>}
                    </>
                  );
                  return (
                    <td class={`number ${state}`} style={tint(change ? off : cell.value, change)}>
                      {items ? (
                        <a href={href("items", { x: named(number), t: experiment.tasks[place].key, f: "wrong", a: method.label, stage, seed })} aria-label={`${about}; its items`}>
                          {content}
                        </a>
                      ) : (
                        content
                      )}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

/** Blue for what is high or gained, orange for what is lost; weak, so that the number can be read. */
function tint(value: number | null, change: boolean) {
  if (value === null) return undefined;
  const part = change ? Math.max(-1, Math.min(1, value / 60)) : value / 100;
  const color = part < 0 ? "var(--loss)" : "var(--gain)";
  return { "--tint": `color-mix(in srgb, ${color} ${Math.round(Math.abs(part) * (change ? 70 : 45))}%, transparent)` };
}
