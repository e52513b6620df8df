/** Items that become right or wrong at every stage, with McNemar's test. */
import { flips } from "../data";
import { FATES } from "../fate";
import { pValue } from "../format";
import type { ViewProps } from "../main";
import { changed, href, named } from "../route";
import { MethodName } from "../ui/marker";
import { Choice, Empty, useLoaded, Waiting } from "../ui/parts";
import { firstMethod, sequenceMethods } from "../filter";
import { Legend, NO_ITEMS } from "./items";

export const CHANGED = "Changed predictions";
const MOST = 600;

export function FlipsView({ experiment, number, route }: ViewProps) {
  const loaded = useLoaded(() => flips(number), String(number));
  const methods = sequenceMethods(experiment);
  const wanted = route.get("m") || firstMethod(methods)?.label || "";
  const task = route.get("t");
  const set = (changes: Record<string, string>) => (location.hash = changed(changes).slice(1));
  if (!loaded.value) return <Waiting title={CHANGED} error={loaded.error} />;
  if (!loaded.value.rows.length) return <Empty title={CHANGED}>{NO_ITEMS}</Empty>;
  const byRun = new Map(methods.flatMap((method) => method.runs.map((run) => [run, method] as const)));
  const rows = loaded.value.rows.filter(([own, run]) => (wanted === "*" || byRun.get(run)?.label === wanted) && (!task || experiment.tasks[own].key === task));
  return (
    <>
      <h1>{CHANGED}</h1>
      <p class="lead">
        What one stage does to the items of a task. McNemar's exact test asks whether as many items become right as become wrong; it counts items as
        independent, also those of one image, and is not corrected for the number of rows.
      </p>
      <div class="controls">
        <Choice label="Method" value={wanted} options={[["*", "All methods"], ...methods.map((one) => [one.label, one.label] as [string, string])]} onChange={(m) => set({ m })} />
        <Choice label="Task" value={task} options={[["", "All tasks"], ...experiment.tasks.filter((one) => one.items).map((one) => [one.key, one.name] as [string, string])]} onChange={(t) => set({ t })} />
        <Legend />
      </div>
      {rows.length > MOST && <p class="muted">The first {MOST} of {rows.length.toLocaleString("en-US")} rows. Choose a method or task.</p>}
      <div class="scroll" tabIndex={0} role="group" aria-label={CHANGED}>
        <table class="data">
          <caption class="hidden">Items by what a stage does to them</caption>
          <thead>
            <tr>
              {["task", "method", "seed", "stage", "became right", "became wrong", "net", "p", ""].map((title, place) => (
                <th scope="col" class={place > 3 && place < 8 ? "number" : ""}>
                  {title || <span class="sr">drawn</span>}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.slice(0, MOST).map(([own, run, stage, ...rest]) => {
              const counts = rest.slice(0, FATES.length);
              const [kept, learned, regained, lost, wrong] = counts;
              const p = rest[FATES.length];
              const total = kept + learned + regained + lost + wrong;
              const gained = learned + regained;
              const method = byRun.get(run);
              const name = experiment.tasks[experiment.runs[run].tasks[stage - 1]]?.name ?? "";
              const link = href("items", { x: named(number), t: experiment.tasks[own].key, f: "wrong", a: method?.label, stage, seed: experiment.runs[run].seed });
              return (
                <tr>
                  <th scope="row">{experiment.tasks[own].name}</th>
                  <td>
                    <MethodName method={method} />
                  </td>
                  <td class="number">{experiment.runs[run].seed}</td>
                  <td>
                    <a href={link}>
                      {stage} {name}
                    </a>
                  </td>
                  <td class="number">{gained}</td>
                  <td class="number">{lost}</td>
                  <td class={`number ${p < 0.05 ? "bold" : ""}`}>{gained > lost ? `+${gained - lost}` : gained - lost}</td>
                  <td class="number">{gained + lost ? pValue(p) : "-"}</td>
                  <td class="drawn">
                    <span class="stack" role="img" aria-label={FATES.map((fate, i) => `${fate} ${counts[i]}`).join(", ")} title={FATES.map((fate, i) => `${fate} ${counts[i]}`).join(", ")}>
                      {FATES.map((fate, i) => (
                        <i class={fate} style={{ width: `${(100 * counts[i]) / Math.max(1, total)}%` }} />
                      ))}
                    </span>
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </>
  );
}
