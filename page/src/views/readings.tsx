/** Form or knowledge: the same answers read strictly, normalised, and by likelihood. */
import type { ViewProps } from "../main";
import { Section } from "../ui/parts";
import { Notes, Table } from "../ui/table";

export function Readings({ experiment }: ViewProps) {
  return (
    <>
      <h1>Form or knowledge</h1>
      <p class="lead">
        An answer that is right once it is normalised, or right by likelihood, but not as it is written, lost its form and not what it knows.
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
