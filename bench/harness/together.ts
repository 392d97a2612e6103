// Several studies as one.

import type { Study, StudyReport } from './question.ts'

/** @param parts by the names that they can be asked alone by; 0 rounds are what each part asks for. */
export const together = (text: string, parts: Readonly<Record<string, Study>>): Study => ({
  kind: 'study',
  text,
  rounds: 0,
  async run({ rounds, progress, signal }) {
    const reports: StudyReport[] = []
    for (const [name, part] of Object.entries(parts)) {
      signal.throwIfAborted()
      const own = (line: string): void => progress(`${name}: ${line}`)
      reports.push(await part.run({ rounds: rounds === 0 ? part.rounds : rounds, progress: own, signal }))
    }
    return {
      findings: reports.flatMap(({ findings }) => findings),
      notes: reports.flatMap(({ notes }) => notes),
    }
  },
})
