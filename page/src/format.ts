/** Numbers as the tables of Python write them. */

/** One decimal, halves to even digits, no "-0.0": Python's f"{round(value, 1):.1f}". */
export function one(value: number | null | undefined): string {
  if (value === null || value === undefined) return "-";
  let text = Math.abs(value).toFixed(1);
  // A number is exactly halfway only if it is an odd number of quarters; toFixed rounds it up.
  const quarters = Math.abs(value) * 4;
  if (Number.isInteger(quarters) && quarters % 4 === 1) text = (Math.floor(Math.abs(value)) + 0.2).toFixed(1);
  return value < 0 && Number(text) ? `-${text}` : text;
}

export function signed(value: number | null | undefined): string {
  const text = one(value);
  return value !== null && value !== undefined && value > 0 && Number(text) ? `+${text}` : text;
}

export const pValue = (p: number) => (p < 0.001 ? "<0.001" : p.toFixed(3));

export const plural = (count: number, noun: string) => `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`;
