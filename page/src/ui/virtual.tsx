/** A list that holds only the rows near the screen; all rows have one height. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";

interface Props {
  count: number;
  height: number;
  label: string;
  row: (place: number) => ComponentChildren;
}

const AROUND = 4;

export function VirtualList({ count, height, label, row }: Props) {
  const list = useRef<HTMLUListElement>(null);
  const [range, setRange] = useState<[number, number]>([0, 20]);
  useEffect(() => {
    const look = () => {
      if (!list.current) return;
      const top = -list.current.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor(top / height) - AROUND);
      const last = Math.min(count, Math.ceil((top + window.innerHeight) / height) + AROUND);
      setRange((old) => (old[0] === first && old[1] === last ? old : [first, last]));
    };
    look();
    window.addEventListener("scroll", look, { passive: true });
    window.addEventListener("resize", look);
    return () => {
      window.removeEventListener("scroll", look);
      window.removeEventListener("resize", look);
    };
  }, [count, height]);
  const move = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const at = Number((event.target as HTMLElement).closest("[data-place]")?.getAttribute("data-place") ?? NaN);
    if (!step || Number.isNaN(at) || at + step < 0 || at + step >= count) return;
    event.preventDefault();
    focus(list.current, at + step, height);
  };
  const [first, last] = [Math.min(range[0], count), Math.min(range[1], count)];
  const places = Array.from({ length: Math.max(0, last - first) }, (_, i) => first + i);
  return (
    <ul class="virtual" ref={list} style={{ height: `${count * height}px` }} aria-label={label} onKeyDown={move}>
      {places.map((place) => (
        <li key={place} data-place={place} aria-setsize={count} aria-posinset={place + 1} style={{ top: `${place * height}px`, height: `${height}px` }}>
          {row(place)}
        </li>
      ))}
    </ul>
  );
}

/** Moves the focus to a row, once it is there. */
function focus(list: HTMLUListElement | null, place: number, height: number): void {
  if (!list) return;
  const top = list.getBoundingClientRect().top + place * height;
  if (top < 80) window.scrollBy(0, top - 80);
  if (top + height > window.innerHeight) window.scrollBy(0, top + height - window.innerHeight + 8);
  requestAnimationFrame(() => requestAnimationFrame(() => list.querySelector<HTMLElement>(`[data-place="${place}"] a`)?.focus()));
}
