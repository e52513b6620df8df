/** Format or knowledge errors: the same answers read strictly, normalised, and by likelihood. */
import type { ViewProps } from "../main";
import { Section } from "../ui/parts";
import { Notes, Table } from "../ui/table";

export const FORMAT = "Format or knowledge errors";

export function Readings({ experiment }: ViewProps) {
  return (
    <>
      <h1>{FORMAT}</h1>
      <p class="lead">
        An answer that is right once it is normalised, or right by likelihood, but not as it is written, is an error of format, not of knowledge.
      </p>
      {experiment.readings.map((table) => (
        <Section id={table.key} title={table.title}>
          <Table table={table} methods={experiment.methods} />
          <Notes notes={table.notes} />
        </Section>
      ))}
      {!experiment.readings.length && <p>No answer to an image task has readings.</p>}
    </>
  );
}
