/** Tables that sort by any column; sections keep apart, as references and methods do. */
import { useMemo, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import type { Method, TableView, TextValue } from "../data";
import { MethodName } from "./marker";

type Order = { column: number; down: boolean } | null;

/** A row's name without the marks of unfinished runs and of settings that were chosen on test items. */
export const bare = (name: string) => name.replace(/[*\u2021]/g, "");

/** A name that lines may break after its commas and colons. */
export const breakable = (name: string): ComponentChildren => name.split(/(?<=[,:])/).flatMap((part) => [part, <wbr />]);

interface Props {
  table: TableView;
  methods?: Method[];
  wide?: boolean;
  caption?: ComponentChildren;
  labels?: string[];
  /** Where the name and the numbers of a row lead. */
  link?: (label: string) => string | undefined;
}

export function Table({ table, methods = [], wide = false, caption, labels = [], link }: Props) {
  const [order, setOrder] = useState<Order>(null);
  const shown = table.columns.map((_, place) => place).filter((place) => wide || !table.columns[place].wide);
  const sections = useMemo(() => table.sections.map((rows) => sorted(rows, order, table)), [table, order]);
  const byLabel = useMemo(() => new Map(methods.map((one) => [one.label, one])), [methods]);
  const sort = (column: number) =>
    setOrder((old) => {
      if (old?.column !== column) return { column, down: table.columns[column].numeric };
      return old.down === table.columns[column].numeric ? { column, down: !old.down } : null;
    });
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label={table.title}>
      <table class="data">
        <caption class={caption ? "" : "hidden"}>{caption ?? table.title}</caption>
        <thead>
          <tr>
            {shown.map((place) => (
              <Head column={table.columns[place]} order={order?.column === place ? order : null} sort={() => sort(place)} />
            ))}
          </tr>
        </thead>
        {sections.map((rows, section) => (
          <tbody>
            {labels[section] && (
              <tr class="label">
                <th colSpan={shown.length} scope="rowgroup">
                  {labels[section]}
                </th>
              </tr>
            )}
            {rows.map((row) => (
              <tr>
                {shown.map((place) => (
                  <Cell value={row[place]} numeric={table.columns[place].numeric} head={place === 0} method={place === 0 ? byLabel.get(bare(row[0][0])) : undefined} link={link?.(bare(row[0][0]))} />
                ))}
              </tr>
            ))}
          </tbody>
        ))}
      </table>
    </div>
  );
}

function Head({ column, order, sort }: { column: TableView["columns"][number]; order: Order; sort: () => void }) {
  const state = order ? (order.down ? "descending" : "ascending") : "none";
  return (
    <th scope="col" class={column.numeric ? "number" : ""} aria-sort={state}>
      <button type="button" onClick={sort}>
        {column.title}
        <span class="arrow" aria-hidden="true">
          {order ? (order.down ? "▼" : "▲") : ""}
        </span>
      </button>
    </th>
  );
}

function Cell({ value, numeric, head, method, link }: { value: TextValue; numeric: boolean; head: boolean; method?: Method; link?: string }) {
  const [text, , , style] = value;
  const broken = head ? breakable(text) : text;
  const name = link && head ? <a href={link}>{broken}</a> : broken;
  const content = method ? <MethodName method={method} name={name} /> : name;
  const classes = [numeric ? "number" : "", style ?? ""].join(" ").trim();
  if (head) {
    return (
      <th scope="row" class={classes}>
        {content}
      </th>
    );
  }
  const [number, spread] = numeric ? text.split(" ±", 2) : [text];
  const shown = (
    <>
      {numeric ? number : content}
      {spread && <span class="spread"> ±{spread}</span>}
      {numeric && style === "bold" && <span class="sr">, bold</span>}
    </>
  );
  // One stop a row for the keyboard: its name leads to the same view.
  return (
    <td class={classes}>
      {link && numeric && text !== "-" ? (
        <a class="plain" href={link} tabIndex={-1}>
          {shown}
        </a>
      ) : (
        shown
      )}
    </td>
  );
}

/** Rows in the order of a column; what is not known comes last. */
function sorted(rows: TextValue[][], order: Order, table: TableView): TextValue[][] {
  if (!order) return rows;
  const { column, down } = order;
  const numeric = table.columns[column].numeric;
  const key = (row: TextValue[]) => (numeric ? (row[column][1] ?? null) : row[column][0]);
  return [...rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || y === null) return Number(x === null) - Number(y === null);
    const less = numeric ? (x as number) - (y as number) : (x as string).localeCompare(y as string, "en", { numeric: true });
    return down ? -less : less;
  });
}

export function Notes({ notes }: { notes: string[] }) {
  if (!notes.length) return null;
  return (
    <details class="notes">
      <summary>What the columns mean</summary>
      <ul>
        {notes.map((note) => (
          <li>{note}</li>
        ))}
      </ul>
    </details>
  );
}
