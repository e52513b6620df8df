/** Arrow keys: between the views, and between the cells of matrices; down from the head or a fresh page to the content. */
const STEPS: Record<string, [down: number, right: number]> = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const VIEWS = "header nav";

export function arrows(event: KeyboardEvent): void {
  const [step, from] = [STEPS[event.key], document.activeElement ?? document.body];
  if (!step || event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const to = next(from, ...step);
  if (!to) return;
  event.preventDefault();
  to.focus();
}

function next(from: Element, down: number, right: number): HTMLElement | undefined {
  const cell = from.closest<HTMLTableCellElement>(".heat td");
  if (cell) return inMatrix(cell, down, right);
  if (right && from.closest(VIEWS)) {
    const views = [...document.querySelectorAll<HTMLElement>(`${VIEWS} a`)];
    return views[views.indexOf(from as HTMLElement) + right];
  }
  if (down < 1 || !(from === document.body || from.id === "main" || from.closest("header a"))) return undefined;
  const head = document.querySelector("header")?.getBoundingClientRect().bottom ?? 0;
  return [...document.querySelectorAll<HTMLElement>(".heat td a, .virtual a")].find((own) => own.getBoundingClientRect().top >= head);
}

/** The next cell with a link; from the last row of a matrix on to the matrix below. */
function inMatrix(cell: HTMLTableCellElement, down: number, right: number): HTMLElement | undefined {
  const row = cell.parentElement as HTMLTableRowElement;
  const line = right ? [...row.cells] : [...document.querySelectorAll<HTMLTableRowElement>(".heat tbody tr")].map((own) => own.cells[Math.min(cell.cellIndex, own.cells.length - 1)]);
  const linked = line.filter((own) => own.querySelector("a"));
  return linked[linked.indexOf(cell) + down + right]?.querySelector("a") ?? undefined;
}
