// The commands that a guide tells people to run, as tests run them.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'

const DEPLOY = join(import.meta.dirname, '../../deploy')

/**
 * @param heading of a section of one of deploy's pages, without `## `.
 * @returns its shell commands in order, each as one line and without its comment.
 * @throws Error where there is no such section, or no command in it.
 */
export function commandsOf(page: string, heading: string): readonly string[] {
  const sections = readFileSync(join(DEPLOY, page), 'utf8').split(/^## /m)
  const section = sections.find((text) => text.startsWith(`${heading}\n`)) ?? ''
  const commands = Array.from(section.matchAll(/^```sh\n([\s\S]*?)^```$/gm), ([, block = '']) =>
    commandsIn(block),
  ).flat()
  if (commands.length === 0) throw new Error(`deploy/${page} has no commands under ## ${heading}`)
  return commands
}

const commandsIn = (block: string): readonly string[] =>
  block
    .replaceAll(/\\\n\s*/g, '')
    .split('\n')
    .map((line) => line.replace(/\s+# .*$/, '').trim())
    .filter((line) => line !== '')
