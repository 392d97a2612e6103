// What is wrong in a YAML text, in words for who wrote it: the parser's own speak of flow collections and implicit keys,
// and of where it noticed, not of where the mistake is. Pure.

import type { YAMLParseError } from 'yaml'

const EXCERPT_MAX = 60

/** @returns where the mistake is in the text, and what it is, the line itself first. */
export function explainYaml(
  text: string,
  error: YAMLParseError,
): { readonly offset: number; readonly message: string } {
  const { offset, message } = explanation(text, error)
  const line = lineAt(text, offset).trim()
  const excerpt = line.length > EXCERPT_MAX ? `${line.slice(0, EXCERPT_MAX)}…` : line
  return { offset, message: excerpt === '' ? message : `“${excerpt}”: ${message}` }
}

function explanation(text: string, { code, message, pos: [noticed] }: YAMLParseError) {
  const here = (words: string) => ({ offset: noticed, message: words })
  switch (code) {
    case 'BAD_INDENT':
      return message.startsWith('Flow') ? unclosed(text, noticed) : here('is indented unlike the lines above it')
    case 'MISSING_CHAR':
      return unclosed(text, noticed)
    case 'BLOCK_AS_IMPLICIT_KEY':
      return here('has a second “: ” in its value: quote the value')
    case 'MULTILINE_IMPLICIT_KEY':
      return here('has no “: ” between key and value')
    case 'DUPLICATE_KEY':
      return here('the same key stands above')
    case 'TAB_AS_INDENT':
      return here('is indented by a tab: use blanks')
    case 'BAD_SCALAR_START':
      return here(`a text that begins with ${text[noticed]} must be quoted`)
    case 'UNEXPECTED_TOKEN':
      return here(/flow-(map|seq)-end/.test(message) ? `the ${text[noticed]} closes nothing` : message)
    default:
      return here(message)
  }
}

/** Told where it was opened, not where the end of the line or of the file showed it. */
function unclosed(text: string, noticed: number) {
  const start = Math.max(0, text.lastIndexOf('\n---', noticed))
  const opened = lastUnclosed(text.slice(start, noticed))
  if (opened === undefined) return { offset: noticed, message: 'something that was opened above is never closed' }
  const { offset, open, close } = opened
  const otherwise = CLOSING[open] === undefined ? '' : ', or quote the text'
  return { offset: start + offset, message: `the ${open} is never closed: write ${close} where it ends${otherwise}` }
}

const CLOSING: Readonly<Record<string, string>> = { '[': ']', '{': '}' }

/** The innermost bracket or quote that is open at the end of a text; what looks like one within words is none. */
function lastUnclosed(text: string) {
  const open: { readonly offset: number; readonly open: string; readonly close: string }[] = []
  for (let offset = 0; offset < text.length; offset++) {
    const char = text[offset]!
    const top = open.at(-1)
    const inQuotes = top !== undefined && CLOSING[top.open] === undefined
    if (top !== undefined && char === top.close) open.pop()
    else if (inQuotes) offset += char === '\\' && top.open === '"' ? 1 : 0
    else if (char === '#' && /(^|\s)$/.test(text.slice(Math.max(0, offset - 1), offset))) {
      const end = text.indexOf('\n', offset)
      offset = end === -1 ? text.length : end
    } else if ('[{"\''.includes(char) && begins(text, offset, top !== undefined))
      open.push({ offset, open: char, close: CLOSING[char] ?? char })
  }
  return open.at(-1)
}

/** Whether a value begins here: quotes and brackets count only there. */
function begins(text: string, offset: number, inFlow: boolean): boolean {
  const before = text.slice(Math.max(0, offset - 200), offset)
  return /(^|\n)[ ]*$|[:\-?]\s+$/.test(before) || (inFlow && /[[{,:]\s*$/.test(before))
}

function lineAt(text: string, offset: number): string {
  const start = text.lastIndexOf('\n', offset - 1) + 1
  const end = text.indexOf('\n', offset)
  return text.slice(start, end === -1 ? text.length : end)
}
