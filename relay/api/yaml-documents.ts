// A YAML text as its documents, each parsed by itself: a bracket or a quote that is never closed in one leaves the others
// whole. A line that begins with `---` ends a document wherever it stands (YAML 1.2 §9.1.2). Pure.

import { LineCounter, parseAllDocuments, type Document } from 'yaml'

export type YamlDocument = {
  readonly document: Document.Parsed
  /** The text between two `---`; offsets in the document count from its start. */
  readonly part: string
  /** @param offset in `part`. @returns the line in the whole text, from 1. */
  readonly lineAt: (offset: number) => number
}

const MARKER = /^(?=---(?:[ \t\r]|$))/m
/** What may stand before the first marker and still belongs to the document after it. */
const PRELUDE = /^(?:[ \t]*(?:#.*)?\r?\n|%.*\r?\n)*$/

export function splitDocuments(text: string): readonly YamlDocument[] {
  const [first = '', ...others] = text.split(MARKER)
  const parts = others.length > 0 && PRELUDE.test(first) ? [first + others[0]!, ...others.slice(1)] : [first, ...others]
  let linesBefore = 0
  return parts.flatMap((part) => {
    const lineCounter = new LineCounter()
    const before = linesBefore
    linesBefore += part.split('\n').length - 1
    const lineAt = (offset: number): number => before + lineCounter.linePos(offset).line
    // More than one where a document ends with `...`.
    return parseAllDocuments(part, { lineCounter, prettyErrors: false }).map((document) => ({ document, part, lineAt }))
  })
}
