/** The first views of a leaderboard: its sequences, methods and entries, and the rows of one method over all sequences. */
import { board, IDENTITIES, toRow } from "../board";
import { experiment as load, site, type Site } from "../data";
import { plural } from "../format";
import { href, named, type Route } from "../route";
import { Copy, Empty, Facts, Section, useLoaded, Waiting } from "../ui/parts";
import { bare, breakable, Notes, Table } from "../ui/table";

export const SITE_VIEWS: [key: string, title: string, view: (props: { route: Route }) => preact.JSX.Element][] = [
  ["sequences", "Sequences", Sequences],
  ["methods", "Methods", Methods],
  ["history", "History", History],
  ["method", "Method", MethodView],
];
const COMMANDS = ["moextend bench pack RUN... --out PACK.tar.zst", "moextend bench leaderboard PACKS/ --out SITE/"];
const all = (): Site => site ?? { sequences: [], methods: [], history: [] };
const place = (at: number) => <a href={href("overview", { x: named(at) })}>{all().sequences[at].key}</a>;

interface ListProps {
  title: string;
  heads: string[];
  rows: preact.ComponentChildren[][];
}

/** A table of words and links; its first column names the rows. */
function List({ title, heads, rows }: ListProps) {
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label={title}>
      <table class="data list">
        <caption class="hidden">{title}</caption>
        <thead>
          <tr>
            {heads.map((head) => (
              <th scope="col">{head}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(([first, ...rest]) => (
            <tr>
              <th scope="row">{first}</th>
              {rest.map((cell, place) => (
                <td data-head={heads[place + 1]}>
                  <div>{cell}</div>
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** How many there are; opened, which. */
function Several({ noun, words }: { noun: string; words: string[] }) {
  return (
    <details>
      <summary>{plural(words.length, noun)}</summary>
      {words.map((word) => (
        <div class="small-text">{breakable(word)}</div>
      ))}
    </details>
  );
}

function Sequences() {
  const { sequences, history } = all();
  const groups = Object.keys(IDENTITIES).filter((key) => sequences.some((one) => one.best[key]));
  const best = (at: number, key: string) => {
    const found = sequences[at].best[key];
    if (!found) return <span class="muted">-</span>;
    return (
      <>
        <a href={href("row", { x: named(at), m: found[0] })}>{found[1]}</a>
        <span class="muted small-text under">{breakable(found[0])}</span>
      </>
    );
  };
  return (
    <>
      <h1>What methods learn and forget</h1>
      <p>
        Every row is a method that learned a sequence of tasks one after the other, and was scored on all of them after every stage. The rows of a sequence share its tasks, base, data and scorers, and are ranked by ACC, the mean
        accuracy after the last stage, among those that know as much of the task of an input. Every number leads to its runs.
      </p>
      <List
        title="Sequences"
        heads={["sequence", ...groups.map((key) => `best: ${IDENTITIES[key].toLowerCase()}`), "tasks", "methods", "seeds", "last run"]}
        rows={sequences.map((one, at) => [
          <>
            {place(at)}
            {one.differs && <span class="muted small-text under">{one.differs}</span>}
          </>,
          ...groups.map((key) => best(at, key)),
          <Several noun="task" words={one.tasks} />,
          one.methods,
          one.seeds.length,
          one.made,
        ])}
      />
      <Section id="submit" title="Submit a method">
        <p>
          A submission is one or more packs of finished runs; the site is built from all packs of a folder. How runs are packed, checked and handed in is in docs/howto/share.md of moextend. This site was built from{" "}
          {plural(new Set(history.flatMap((one) => one.packs)).size, "pack")}.
        </p>
        {COMMANDS.map((text) => (
          <div class="command">
            <code>{text}</code>
            <Copy text={text} />
          </div>
        ))}
      </Section>
    </>
  );
}

const identities = (keys: string[]) =>
  Object.keys(IDENTITIES)
    .filter((key) => keys.includes(key))
    .map((key) => IDENTITIES[key])
    .join(", ")
    .replace(/, [TN]/g, (found) => found.toLowerCase());

function Methods() {
  return (
    <>
      <h1>Methods</h1>
      <List
        title="Methods"
        heads={["method", "at inference", "sequences", "what it does"]}
        rows={all().methods.map((one) => [<a href={href("method", { m: one.name })}>{one.name}</a>, identities(one.identities), one.at.length, <span class="words">{one.description || one.source}</span>])}
      />
    </>
  );
}

function MethodView({ route }: { route: Route }) {
  const own = all().methods.find((one) => one.name === route.get("m"));
  const loaded = useLoaded(() => Promise.all((own?.at ?? []).map(async (at) => [at, await load(at)] as const)), own?.name ?? "");
  if (!own) return <Empty title="Method">{`No row is of a method “${route.get("m")}”.`}</Empty>;
  return (
    <>
      <h1>{own.name}</h1>
      {own.description && <p>{own.description}</p>}
      <Facts pairs={[["At inference", identities(own.identities)], ["Source", own.source]]} />
      {loaded.value?.map(([at, experiment]) => {
        const { table, labels } = board(experiment, { get: () => "" });
        const names = new Set(experiment.methods.filter((one) => one.method.split(":")[0] === own.name).map((one) => one.label));
        const parts = table.sections.map((rows, i) => [labels[i], rows.filter((row) => names.has(bare(row[0][0])))] as const).filter(([, rows]) => rows.length);
        return (
          <section aria-label={experiment.title}>
            <h2>{place(at)}</h2>
            <Table table={{ ...table, sections: parts.map(([, rows]) => rows) }} methods={experiment.methods} labels={parts.map(([label]) => label)} link={toRow(experiment, at)} />
            <Notes notes={table.notes} />
          </section>
        );
      })}
      {!loaded.value && <Waiting error={loaded.error} />}
    </>
  );
}

function History() {
  return (
    <>
      <h1>History</h1>
      <p class="lead">An entry is what one version of moextend at one commit adds to a sequence, on the day of its last run.</p>
      <List
        title="Entries"
        heads={["made", "sequence", "methods", "seeds", "moextend", "commit", "packs"]}
        rows={all().history.map((one) => [
          one.made,
          place(one.at),
          <Several noun="method" words={one.methods} />,
          one.seeds.join(", "),
          one.version,
          <code>{one.commit}</code>,
          <Several noun="pack" words={one.packs} />,
        ])}
      />
    </>
  );
}
