/** One item: what was asked, and what every method answered after every stage. */
import { useEffect, useMemo } from "preact/hooks";
import { answerAt, rightAt, scoreAt } from "../fate";
import { filtered, sequenceMethods, shownRuns, type Shown } from "../filter";
import type { ViewProps } from "../main";
import { changed, href, named, replace } from "../route";
import { Copy, Empty, Facts, Waiting } from "../ui/parts";
import { MethodName } from "../ui/marker";
import { kept, Legend, mediaOf, Shows, square, useItems, type Loaded } from "./items";

export function ItemView({ experiment, number, route }: ViewProps) {
  const asked = route.get("t");
  const own = route.get("of") || asked;
  const task = experiment.tasks.find((one) => one.key === own && one.items > 0);
  const loaded = useItems(task ? [task] : []);
  const back = href("items", { ...kept(route), x: named(number), t: asked });
  const all = route.get("all") === "1";
  const runs: Shown[] = all
    ? sequenceMethods(experiment).flatMap((method) => method.runs.map((run) => ({ method, run: experiment.runs[run], number: run })))
    : shownRuns(experiment, route);
  const found = loaded.value?.[0];
  const place = found?.items.places.get(route.get("id"));
  const settings = Object.values(kept(route)).join("\u0000");
  const list = useMemo(() => (found ? filtered(found.items, shownRuns(experiment, route), route) : []), [found, settings]);
  const at = place === undefined ? -1 : list.indexOf(place);
  const link = (to: number) => (found && list[to] !== undefined ? changed({ id: found.items.ids[list[to]] }) : undefined);
  const [before, after] = [at > 0 ? link(at - 1) : undefined, link(at + 1)];
  useEffect(() => {
    const key = (event: KeyboardEvent) => {
      if (/^(INPUT|SELECT|TEXTAREA)$/.test((event.target as HTMLElement).tagName) || event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return;
      const to = { ArrowLeft: before, ArrowRight: after, Escape: back }[event.key];
      if (to) location.hash = to.slice(1);
    };
    window.addEventListener("keydown", key);
    return () => window.removeEventListener("keydown", key);
  }, [before, after, back]);
  if (!task) return <Empty title="Item">There are no items of a task “{own}”.</Empty>;
  if (!found) return <Waiting title="Item" error={loaded.error} />;
  if (place === undefined) return <Empty title="Item">{`There is no item “${route.get("id")}” in ${task.name}.`}</Empty>;
  return (
    <>
      <nav class="trail" aria-label="Items">
        <a href={back}>← Items of {asked === "*" ? "all tasks" : task.name}</a>
        <span class="steps">
          {at >= 0 && <span class="muted">{`${(at + 1).toLocaleString("en-US")} of ${list.length.toLocaleString("en-US")}`}</span>}
          {before ? <a href={before}>Previous</a> : <span class="muted">Previous</span>}
          {after ? <a href={after}>Next</a> : <span class="muted">Next</span>}
        </span>
        <Copy text={location.href} label="Copy link" />
      </nav>
      <Asked found={found} item={place} />
      <div class="controls">
        <label class="check">
          <input type="checkbox" checked={all} onChange={(event) => replace({ all: event.currentTarget.checked ? 1 : null })} /> All methods and seeds
        </label>
        <Legend />
      </div>
      <Answers found={found} item={place} runs={runs} names={experiment.tasks.map((one) => one.name)} />
      <SameImage found={found} item={place} />
    </>
  );
}

function Asked({ found, item }: { found: Loaded; item: number }) {
  const { items, task } = found;
  const shown = mediaOf(found, item);
  const facts: [string, string][] = [
    ["Reference", items.reference[item]],
    ["Choices", items.choices[item]],
    ["Kind", items.kind[item]],
    ["Task", task.name],
    ["Prompt", task.prompt],
    ["Item", items.ids[item]],
  ];
  return (
    <div class="question">
      {(shown.length ? shown : [undefined]).map((medium) => (
        <Shows medium={medium} large />
      ))}
      <div>
        <h1>{items.question[item] || items.ids[item]}</h1>
        <Facts pairs={facts} />
      </div>
    </div>
  );
}

function Answers({ found, item, runs, names }: { found: Loaded; item: number; runs: Shown[]; names: string[] }) {
  const { items } = found;
  const stages = [...Array(items.stages).keys()];
  const orders = new Set(runs.map((one) => one.run.order));
  const first = runs[0]?.run;
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label="Answers">
      <table class="data answers">
        <caption class="hidden">Answers after every stage</caption>
        <thead>
          <tr>
            <th scope="col">method</th>
            <th scope="col">seed</th>
            {stages.map((stage) => (
              <th scope="col">
                {stage === 0 ? "base" : `${stage}${orders.size === 1 && first ? ` ${names[first.tasks[stage - 1]] ?? ""}` : ""}`}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {runs.map(({ method, run, number }) => {
            const place = items.runs.get(number);
            if (place === undefined) return null;
            return (
              <tr>
                <th scope="row">
                  <MethodName method={method} />
                </th>
                <td class="number">{run.seed}</td>
                {stages.map((stage) => {
                  if (stage > run.last) return <td />;
                  const fate = square(items, item, place, stage);
                  const [answer, right, score] = [answerAt(items, item, place, stage), rightAt(items, item, place, stage), scoreAt(items, item, place, stage)];
                  const partly = score !== null && score > 0 && score < 1;
                  return (
                    <td class={`answer ${fate}`} title={`${fate}${score === null ? "" : `, score ${score}`}`}>
                      <span class="mark">{right === 1 ? "✓" : right === 0 ? "✗" : "·"}</span> {answer === null ? <i class="muted">not kept</i> : answer === "" ? <i class="muted">empty</i> : answer}
                      {partly && <span class="spread"> {score.toFixed(2)}</span>}
                      <span class="sr">, {fate}</span>
                    </td>
                  );
                })}
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function SameImage({ found, item }: { found: Loaded; item: number }) {
  const { items } = found;
  const group = items.group[item];
  const others = group ? items.group.flatMap((one, place) => (one === group && place !== item ? [place] : [])) : [];
  if (!others.length) return null;
  return (
    <section aria-labelledby="same">
      <h2 id="same">Other items of this image</h2>
      <ul>
        {others.slice(0, 20).map((place) => (
          <li>
            <a href={changed({ id: items.ids[place] })}>{items.question[place] || items.ids[place]}</a> <span class="muted">{items.reference[place]}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}
