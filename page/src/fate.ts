/** What becomes of an item over the stages of a run; the same rules as bench/report/fate.py. */
import type { Items } from "./data";

export const FATES = ["kept", "learned", "regained", "lost", "wrong"] as const;
export type Fate = (typeof FATES)[number];

/** 1 right, 0 wrong, -1 not known; `run` is the place of the run in the columns. */
export function rightAt(items: Items, item: number, run: number, stage: number): number {
  return items.right[items.score[(item * items.runs.size + run) * items.stages + stage]];
}

export function answerAt(items: Items, item: number, run: number, stage: number): string | null {
  const code = items.answer[(item * items.runs.size + run) * items.stages + stage];
  return code ? items.answers[code - 1] : null;
}

export function scoreAt(items: Items, item: number, run: number, stage: number): number | null {
  const code = items.score[(item * items.runs.size + run) * items.stages + stage];
  return code ? items.scores[code - 1] : null;
}

/** The fate of an item at a stage (1 and later); null where it was not scored before or after. */
export function fateAt(items: Items, item: number, run: number, stage: number): Fate | null {
  const [before, after] = [rightAt(items, item, run, stage - 1), rightAt(items, item, run, stage)];
  if (before < 0 || after < 0) return null;
  if (before) return after ? "kept" : "lost";
  if (!after) return "wrong";
  for (let past = 0; past < stage; past++) if (rightAt(items, item, run, past) === 1) return "regained";
  return "learned";
}

/** What a filter asks of one run. */
export interface Life {
  /** Right after the last stage: 1, 0, or -1 where that is not known. */
  end: number;
  ever: boolean;
  always: boolean;
  /** Became right at some stage. */
  gained: boolean;
  regained: boolean;
}

export function life(items: Items, item: number, run: number, last: number): Life {
  const found: Life = { end: -1, ever: false, always: true, gained: false, regained: false };
  const start = (item * items.runs.size + run) * items.stages;
  let before = -1;
  for (let stage = 0; stage <= last; stage++) {
    const now = items.right[items.score[start + stage]];
    if (now === 1) {
      if (before === 0) {
        found.gained = true;
        found.regained ||= found.ever;
      }
      found.ever = true;
    } else found.always = false;
    before = now;
  }
  found.end = before;
  return found;
}
