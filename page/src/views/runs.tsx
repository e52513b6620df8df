/** The runs of a workspace as they work, and whether the page still hears of them. */
import type { LiveRun, News } from "../live";
import { Copy } from "../ui/parts";

const LOST = "The server does not answer. Open the address that it printed.";
const WORDS = { connecting: "connecting…", live: "live", lost: "no connection", newer: "There are new results." };
const START = "moextend bench run";

export function Connection({ news }: { news: News }) {
  return (
    <p class={`connection ${news.connection}`} role="status" title={news.connection === "lost" ? LOST : undefined}>
      {WORDS[news.connection]}
      {news.connection === "newer" && (
        <button type="button" class="small" onClick={() => location.reload()}>
          Show them
        </button>
      )}
    </p>
  );
}

export function Runs({ news }: { news: News }) {
  const sequences = [...new Set(news.runs.map((run) => run.sequence))];
  return (
    <>
      <h1>Runs</h1>
      {news.connection === "lost" && <p class="warning">{LOST}</p>}
      {news.notes.map((note) => (
        <p class="warning">{note}</p>
      ))}
      {!news.runs.length && news.connection !== "connecting" && <None />}
      {news.runs.length > 0 && (
        <>
          <p>{counted(news.runs)}</p>
          <div class="scroll" tabIndex={0} role="group" aria-label="Runs">
            <table class="data runs">
              <caption class="hidden">Runs, their states and what they do</caption>
              <thead>
                <tr>
                  {["method", "seed", "state", "stage", "progress", "now", "left"].map((title) => (
                    <th scope="col" class={["seed", "stage", "left"].includes(title) ? "number" : ""}>
                      {title}
                    </th>
                  ))}
                </tr>
              </thead>
              {sequences.map((sequence) => (
                <tbody key={sequence}>
                  <tr class="label">
                    <th scope="rowgroup" colSpan={7}>
                      {sequence}
                    </th>
                  </tr>
                  {news.runs
                    .filter((run) => run.sequence === sequence)
                    .map((run) => (
                      <Row key={run.run} run={run} />
                    ))}
                </tbody>
              ))}
            </table>
          </div>
        </>
      )}
    </>
  );
}

function Row({ run }: { run: LiveRun }) {
  return (
    <tr>
      <th scope="row" title={run.run}>
        {run.method ?? run.run}
      </th>
      <td class="number">{run.seed}</td>
      <td class={run.state}>{run.state}</td>
      <td class="number">{run.stage}</td>
      <td>{run.fraction !== undefined && <progress value={run.fraction} max={1} aria-label={`${run.run}: ${Math.floor(100 * run.fraction)}%`} />}</td>
      <td class="now">{run.now}</td>
      <td class="number">{run.left}</td>
    </tr>
  );
}

function None() {
  return (
    <>
      <p>There is no run yet. Start one in this workspace; it appears here.</p>
      <div class="command">
        <code>{START}</code>
        <Copy text={START} />
      </div>
    </>
  );
}

function counted(runs: LiveRun[]): string {
  const states: LiveRun["state"][] = ["running", "waiting", "done", "interrupted", "lost", "failed", "damaged"];
  const counts = states.map((state) => [runs.filter((run) => run.state === state).length, state] as const);
  return counts.flatMap(([count, state]) => (count ? `${count} ${state}` : [])).join(", ");
}
