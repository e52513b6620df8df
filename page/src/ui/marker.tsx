/** Markers of methods, with the shapes and colours of the figures. */
import type { ComponentChildren } from "preact";
import type { Method } from "../data";

const polygon = (corners: number, turn = -90, inner = 1) =>
  "M" +
  Array.from({ length: corners }, (_, i) => {
    const angle = ((turn + (360 * i) / corners) * Math.PI) / 180;
    const radius = i % 2 ? inner : 1;
    return `${(radius * Math.cos(angle)).toFixed(3)} ${(radius * Math.sin(angle)).toFixed(3)}`;
  }).join("L") +
  "Z";

const SHAPES: Record<string, string> = {
  o: "M-0.9 0A0.9 0.9 0 1 0 0.9 0A0.9 0.9 0 1 0 -0.9 0Z",
  s: "M-0.8 -0.8H0.8V0.8H-0.8Z",
  "^": "M0 -0.95L0.95 0.8H-0.95Z",
  v: "M0 0.95L0.95 -0.8H-0.95Z",
  "<": "M-0.95 0L0.8 -0.95V0.95Z",
  ">": "M0.95 0L-0.8 -0.95V0.95Z",
  D: "M0 -1L1 0L0 1L-1 0Z",
  P: "M-0.35 -1H0.35V-0.35H1V0.35H0.35V1H-0.35V0.35H-1V-0.35H-0.35Z",
  X: "M-1 -0.5L-0.5 -1L0 -0.5L0.5 -1L1 -0.5L0.5 0L1 0.5L0.5 1L0 0.5L-0.5 1L-1 0.5L-0.5 0Z",
  p: polygon(5),
  h: polygon(6),
  "*": polygon(10, -90, 0.45),
};

export function Shape({ method, x = 0, y = 0, size = 5 }: { method: Method; x?: number; y?: number; size?: number }) {
  const style = { fill: method.filled ? method.color : "var(--paper)", stroke: method.filled ? "var(--ring)" : method.color };
  return (
    <g transform={`translate(${x} ${y}) scale(${size})`}>
      {!method.filled && <path d={SHAPES[method.marker]} style={{ fill: "none", stroke: "var(--ring)", strokeWidth: 0.75 }} />}
      <path d={SHAPES[method.marker]} style={{ ...style, strokeWidth: method.filled ? 0.25 : 0.45 }} />
    </g>
  );
}

export function Marker({ method }: { method: Method | undefined }) {
  return (
    <svg class="marker" viewBox="-7 -7 14 14" width="14" height="14" aria-hidden="true">
      {method && <Shape method={method} />}
    </svg>
  );
}

export function MethodName({ method, name }: { method: Method | undefined; name?: ComponentChildren }) {
  return (
    <span class="method">
      <Marker method={method} />
      <span>{name ?? method?.label}</span>
    </span>
  );
}
