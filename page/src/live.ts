/** News of the runs from moextend bench serve, as long as the page is looked at. */
import { useEffect, useState } from "preact/hooks";
import { live, refresh } from "./data";

export interface LiveRun {
  run: string;
  sequence: string;
  state: "waiting" | "running" | "done" | "failed" | "interrupted" | "lost" | "damaged";
  /** What a run does, or why it does not; the fields below are missing of a damaged run. */
  now: string;
  method?: string;
  seed?: string;
  stage?: string;
  left?: string;
  fraction?: number;
  losses?: [stage: number, loss: number][];
}

export interface News {
  connection: "connecting" | "live" | "lost";
  runs: LiveRun[];
  notes: string[];
  /** Of the report that is shown; "" before the first. */
  version: string;
  /** Whether the server has looked at the runs. */
  known: boolean;
}

interface Message {
  all: boolean;
  rows: Record<string, LiveRun | null>;
  notes: string[];
  version: string;
}

const NONE: News = { connection: "connecting", runs: [], notes: [], version: "", known: false };

export function useNews(): News {
  const [news, setNews] = useState(NONE);
  useEffect(() => {
    if (live) return follow((changes) => setNews((before) => ({ ...before, ...changes })));
    return undefined;
  }, []);
  return news;
}

/** Calls back with what changes until it is stopped. A tab in the background holds no connection: browsers allow few. */
function follow(tell: (changes: Partial<News>) => void): () => void {
  const rows = new Map<string, LiveRun>();
  let source: EventSource | undefined;
  let [wanted, shown, loading] = ["", "", false];

  async function load() {
    if (loading) return;
    loading = true;
    while (wanted !== shown) {
      const next = wanted;
      try {
        await refresh(next);
      } catch {
        if (wanted === next) break; // a later version comes with the next message
        continue;
      }
      const place = window.scrollY;
      tell({ version: (shown = next) });
      requestAnimationFrame(() => requestAnimationFrame(() => window.scrollTo(0, place)));
    }
    loading = false;
  }

  function heard(event: MessageEvent<string>) {
    const message = JSON.parse(event.data) as Message;
    if (message.all) rows.clear();
    for (const [name, row] of Object.entries(message.rows)) {
      if (row) rows.set(name, row);
      else rows.delete(name);
    }
    const names = [...rows.keys()].sort();
    tell({ connection: "live", known: true, notes: message.notes, runs: names.flatMap((name) => rows.get(name) ?? []) });
    wanted = message.version;
    void load();
  }

  function look() {
    if (document.hidden) {
      source?.close();
      source = undefined;
    } else if (!source) {
      source = new EventSource("events");
      source.onmessage = heard;
      source.onerror = () => tell({ connection: source?.readyState === EventSource.CLOSED ? "lost" : "connecting" });
    }
  }

  look();
  document.addEventListener("visibilitychange", look);
  return () => {
    document.removeEventListener("visibilitychange", look);
    source?.close();
  };
}
