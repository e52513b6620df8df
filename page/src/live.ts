/** What runs do, asked of moextend bench serve every two seconds while somebody looks at the page. */
import { useEffect, useState } from "preact/hooks";
import { shown } from "./data";

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
}

interface State {
  version: string;
  runs: LiveRun[];
  notes: string[];
}

export interface News extends State {
  connection: "connecting" | "live" | "lost" | "newer";
}

export function useNews(): News {
  const [news, setNews] = useState<News>({ connection: "connecting", version: "", runs: [], notes: [] });
  useEffect(() => {
    if (!shown) return undefined;
    const look = async () => {
      if (document.hidden) return;
      try {
        const answer = await fetch("live.json");
        const state = (await answer.json()) as State;
        setNews({ ...state, connection: state.version === shown ? "live" : "newer" });
      } catch {
        setNews((before) => ({ ...before, connection: "lost" }));
      }
    };
    void look();
    const timer = setInterval(() => void look(), 2000);
    document.addEventListener("visibilitychange", look);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", look);
    };
  }, []);
  return news;
}
