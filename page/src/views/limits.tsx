/** What the results cannot show. */
import type { Limit } from "../data";
import type { ViewProps } from "../main";

const FEW = 12;

export function Limits({ experiment }: ViewProps) {
  return (
    <>
      <h1>Limits</h1>
      {experiment.limits.map((limit) => (
        <section>
          <h2>{limit.title}</h2>
          <p>{limit.text}</p>
          {limit.rows.length > FEW + 1 ? (
            <details>
              <summary>{(limit.rows.length - 1).toLocaleString("en-US")} rows</summary>
              <Rows limit={limit} />
            </details>
          ) : (
            limit.rows.length > 0 && <Rows limit={limit} />
          )}
        </section>
      ))}
      {!experiment.limits.length && <p>None of the usual limits was found.</p>}
    </>
  );
}

function Rows({ limit }: { limit: Limit }) {
  const [head, ...rows] = limit.rows;
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label={limit.title}>
      <table class="data">
        <caption class="hidden">{limit.title}</caption>
        <thead>
          <tr>
            {head.map((title) => (
              <th scope="col">{title}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr>{row.map((text, place) => (place ? <td>{text}</td> : <th scope="row">{text}</th>))}</tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
