/** Accuracy against cost, with the methods that no other beats in both. */
import { useState } from "preact/hooks";
import type { Method } from "../data";
import type { ViewProps } from "../main";
import { one } from "../format";
import { Choice, useNarrow } from "../ui/parts";
import { Shape } from "../ui/marker";
import { toRow } from "../board";
import { bare, Notes, Table } from "../ui/table";

interface Point {
  method: Method;
  cost: number;
  acc: number;
}

const [HEIGHT, LEFT, BOTTOM, TOP] = [400, 46, 46, 30];
/** Of the drawing, and of the room for labels at its right; on a phone, labels stand where there is room among the points. */
const [WIDE, NARROW] = [[860, 170], [380, 26]] as const;

export function Costs({ experiment, number }: ViewProps) {
  const { costs, summary } = experiment;
  const columns = costs.columns.map((_, place) => place).filter((place) => costs.columns[place].numeric && costs.sections.flat().some((row) => row[place][1] != null));
  const [chosen, setChosen] = useState(String(columns[0] ?? 1));
  const acc = summary.columns.findIndex((column) => column.key === "acc");
  const score = new Map(summary.sections.flat().map((row) => [bare(row[0][0]), row[acc][1]]));
  const byLabel = new Map(experiment.methods.filter((own) => own.mode === "sequence").map((own) => [own.label, own]));
  const points = costs.sections.flat().flatMap((row) => {
    const [method, cost, value] = [byLabel.get(bare(row[0][0])), row[Number(chosen)][1], score.get(bare(row[0][0]))];
    return method && cost != null && value != null ? [{ method, cost, acc: value }] : [];
  });
  return (
    <>
      <h1>Costs</h1>
      <div class="controls">
        <Choice label="Cost" value={chosen} options={columns.map((place) => [String(place), costs.columns[place].title])} onChange={setChosen} />
        <p class="legend">The line joins the methods that no other beats in both. The table below has the same numbers.</p>
      </div>
      {points.length ? <Pareto points={points} name={costs.columns[Number(chosen)].title} /> : <p>No costs are known.</p>}
      <Table table={costs} methods={experiment.methods} wide link={toRow(experiment, number)} />
      <Notes notes={costs.notes} />
    </>
  );
}

function Pareto({ points, name }: { points: Point[]; name: string }) {
  const [width, right] = useNarrow() ? NARROW : WIDE;
  const costs = points.map((own) => own.cost);
  const x = scale(costs, [LEFT + 14, width - right]);
  const accs = points.map((own) => own.acc);
  const [low, high] = [Math.floor(Math.min(...accs) / 5) * 5, Math.ceil((Math.max(...accs) + 0.5) / 5) * 5];
  const y = (value: number) => HEIGHT - BOTTOM - ((value - low) / (high - low || 1)) * (HEIGHT - BOTTOM - TOP);
  const front = [...points].sort((a, b) => a.cost - b.cost || b.acc - a.acc).filter((own, i, all) => all.slice(0, i).every((other) => other.acc < own.acc));
  const rows = [...Array((high - low) / 5 + 1).keys()].map((step) => low + 5 * step).filter((_, i, all) => all.length < 9 || i % 2 === 0);
  return (
    <figure class="chart" tabIndex={0} role="group" aria-label={`ACC against ${name}`}>
      <svg viewBox={`0 0 ${width} ${HEIGHT}`} role="img" aria-label={`ACC against ${name}; not beaten in both: ${front.map((own) => own.method.label).join(", ")}`}>
        {rows.map((tick) => (
          <g>
            <line x1={LEFT} x2={width - right + 14} y1={y(tick)} y2={y(tick)} class="grid" />
            <text x={LEFT - 8} y={y(tick) + 4} text-anchor="end">
              {tick}
            </text>
          </g>
        ))}
        {x.ticks.map((tick) => (
          <text x={x.place(tick)} y={HEIGHT - BOTTOM + 18} text-anchor="middle">
            {short(tick)}
          </text>
        ))}
        <text x={(LEFT + width - right) / 2} y={HEIGHT - 6} text-anchor="middle" class="title">
          {name}
          {x.log ? " (log scale)" : ""}
        </text>
        <text x={LEFT - 8} y={TOP - 12} class="title">
          ACC, %
        </text>
        <polyline points={front.map((own) => `${x.place(own.cost)},${y(own.acc)}`).join(" ")} class="front" />
        {points.map((own) => (
          <g class="point">
            <title>{`${own.method.label}: ACC ${one(own.acc)}, ${name} ${short(own.cost)}`}</title>
            <Shape method={own.method} x={x.place(own.cost)} y={y(own.acc)} size={front.includes(own) ? 7 : 5.5} />
          </g>
        ))}
        {labelled(front, points.map((own) => ({ own, x: x.place(own.cost), y: y(own.acc) })), width).map((label) => (
          <text x={label.x} y={label.y + 4} text-anchor={label.anchor} class={front.includes(label.own) ? "title" : ""}>
            {label.own.method.label}
          </text>
        ))}
      </svg>
    </figure>
  );
}

interface Scale {
  place: (cost: number) => number;
  ticks: number[];
  log: boolean;
}

/** A linear scale from 0, or a logarithmic one where costs differ much; what costs nothing stands at its left end. */
function scale(costs: number[], [start, end]: [number, number]): Scale {
  const positive = costs.filter((cost) => cost > 0);
  const [least, most] = [Math.min(...positive), Math.max(...positive, 0)];
  const log = positive.length > 1 && most / least > 8;
  if (!log) {
    const step = [1, 2, 2.5, 5, 10].map((unit) => unit * 10 ** Math.floor(Math.log10((most || 1) / 4))).find((one) => (most || 1) / one <= 6) ?? 1;
    const ticks = [...Array(Math.floor((most || 1) / step) + 1).keys()].map((i) => i * step);
    return { place: (cost) => start + ((end - start) * cost) / (most || 1), ticks, log };
  }
  const free = costs.some((cost) => cost <= 0);
  const low = Math.log10(least) - (free ? 0.35 : 0.05);
  const width = Math.log10(most) - low || 1;
  const place = (cost: number) => (cost > 0 ? start + ((end - start) * (Math.log10(cost) - low)) / width : start);
  const ticks = [...Array(24).keys()].flatMap((power) => [1, 2, 5].map((unit) => unit * 10 ** (power - 6))).filter((tick) => tick >= least * 0.9 && tick <= most * 1.05);
  return { place, ticks: [...(free ? [0] : []), ...(ticks.length > 8 ? ticks.filter((tick) => Number.isInteger(Math.log10(tick))) : ticks)], log };
}

interface Placed {
  own: Point;
  x: number;
  y: number;
}

type Label = Placed & { anchor: "start" | "end" | "middle" };
type Box = [left: number, top: number, right: number, bottom: number];

/** Labels that cover neither points nor each other: of the front first, then of plain methods as far as there is room. */
function labelled(front: Point[], placed: Placed[], end: number): Label[] {
  const taken: Box[] = placed.map(({ x, y }) => [x - 6, y - 6, x + 6, y + 6]);
  const wanted = [...placed].sort((a, b) => rank(front, a.own) - rank(front, b.own)).filter(({ own }) => rank(front, own) < 2);
  const found: Label[] = [];
  for (const { own, x, y } of wanted) {
    const width = own.method.label.length * 6.6;
    for (const [dx, dy] of [[11, 0], [-11, 0], [0, -15], [0, 15], [11, -13], [11, 13], [-11, -13], [-11, 13], [14, -26], [14, 26]]) {
      const left = dx > 0 ? x + dx : dx < 0 ? x + dx - width : x - width / 2;
      const box: Box = [left, y + dy - 6, left + width, y + dy + 6];
      const free = left > LEFT && left + width < end && box[1] > TOP - 14 && box[3] < HEIGHT - BOTTOM + 2 && taken.every((other) => apart(box, other));
      if (!free) continue;
      taken.push(box);
      found.push({ own, x: dx === 0 ? x : x + dx, y: y + dy, anchor: dx > 0 ? "start" : dx < 0 ? "end" : "middle" });
      break;
    }
  }
  return found;
}

const rank = (front: Point[], own: Point) => (front.includes(own) ? 0 : own.method.method.includes(":") ? 2 : 1);
const apart = (a: Box, b: Box) => a[2] < b[0] || b[2] < a[0] || a[3] < b[1] || b[3] < a[1];

function short(value: number): string {
  if (value === 0) return "0";
  const power = Math.min(3, Math.floor(Math.log10(Math.abs(value)) / 3));
  if (power <= 0) return String(Number(value.toPrecision(2)));
  return `${Number((value / 1000 ** power).toPrecision(3))}${["", "k", "M", "G"][power]}`;
}
