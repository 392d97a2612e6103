// npm run bench -- QUESTION [--json] [--rounds N] [--svg FILE]: the table on stdout, progress on stderr; exits with 1 if a
// bound falls short. A question is a file of this folder.

import { readdirSync, writeFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { describeOptions, flag, integer, optionalText, parseOptions, type Option } from '../lib/config.ts'
import { runUntilSignal, UsageError } from '../lib/net/lifetime.ts'
import { suggest } from '../lib/suggest.ts'
import { renderChart } from './harness/chart.ts'
import { renderFindings, studyResultOf } from './harness/findings.ts'
import { renderResult, resultOf } from './harness/result.ts'
import type { Comparison, Question, Series, Study } from './harness/question.ts'
import { runRounds } from './harness/rounds.ts'
import { renderSeries, seriesResultOf } from './harness/series.ts'

const OPTIONS = {
  json: { name: 'json', doc: 'one JSON object on stdout', fallback: 'false', parse: flag } satisfies Option<boolean>,
  rounds: {
    name: 'rounds',
    value: 'N',
    doc: 'rounds that count; 0 for what the question asks for',
    fallback: '0',
    parse: integer(0, 1000),
  } satisfies Option<number>,
  svg: {
    name: 'svg',
    value: 'FILE',
    doc: 'the ratios of a study as a picture, too',
    fallback: '',
    parse: optionalText,
  } satisfies Option<string | undefined>,
}
const EX_USAGE = 64

const questions = (): readonly string[] =>
  readdirSync(import.meta.dirname)
    .filter((name) => name.endsWith('.ts') && name !== 'main.ts')
    .map((name) => name.slice(0, -'.ts'.length))

async function load(names: readonly string[]): Promise<Question> {
  const [name] = names
  const known = questions()
  if (name === undefined || names.length > 1) throw new UsageError(`name one question of: ${known.join(', ')}`)
  if (!known.includes(name)) {
    const meant = suggest(name, known)
    throw new UsageError(
      `${name}: no such question; ${meant === undefined ? `there is ${known.join(', ')}` : `did you mean ${meant}?`}`,
    )
  }
  return ((await import(`./${name}.ts`)) as { question: Question }).question
}

const progress = (line: string): void =>
  void process.stderr.write(`[${(performance.now() / 1000).toFixed(1).padStart(6)} s] ${line}\n`)
const machine = `${cpus().length} cores, Linux ${release()}, Node ${process.versions.node}`

type Asked = { readonly rounds: number; readonly json: boolean; readonly svg: string | undefined }

function ask(question: Question, asked: Asked, signal: AbortSignal): Promise<boolean> {
  if (asked.svg !== undefined && question.kind !== 'study') throw new UsageError('--svg: this question has no picture')
  switch (question.kind) {
    case 'comparison':
      return compare(question, asked, signal)
    case 'series':
      return repeat(question, asked, signal)
    case 'study':
      return study(question, asked, signal)
  }
}

async function repeat(question: Series, { rounds, json }: Asked, signal: AbortSignal): Promise<boolean> {
  const count = rounds === 0 ? question.rounds : rounds
  const samples: Readonly<Record<string, number>>[] = []
  while (samples.length < count && !signal.aborted) {
    progress(`round ${samples.length + 1} of ${count}`)
    samples.push(await question.run(progress, signal))
  }
  const result = seriesResultOf(question, [machine], samples)
  process.stdout.write(json ? `${JSON.stringify(result)}\n` : renderSeries(result))
  return result.holds
}

async function study(question: Study, { rounds, json, svg }: Asked, signal: AbortSignal): Promise<boolean> {
  const report = await question.run({ rounds: rounds === 0 ? question.rounds : rounds, progress, signal })
  const result = studyResultOf(question, { ...report, notes: [...report.notes, machine] })
  process.stdout.write(json ? `${JSON.stringify(result)}\n` : renderFindings(result))
  if (svg !== undefined) writeFileSync(svg, renderChart(result))
  return result.holds
}

async function compare(question: Comparison, { rounds, json }: Asked, signal: AbortSignal): Promise<boolean> {
  const prepared = await question.prepare(progress, signal)
  try {
    const { callsPerRound } = question
    const counted = { rounds: rounds === 0 ? question.rounds : rounds, callsPerRound }
    const done = await runRounds(
      prepared,
      counted,
      (index) => progress(`round ${index + 1} of ${counted.rounds}`),
      signal,
    )
    const names = { subject: prepared.subject.name, peer: prepared.peer.name, notes: [...prepared.notes, machine] }
    const result = resultOf(question, names, done)
    process.stdout.write(json ? `${JSON.stringify(result)}\n` : renderResult(result))
    return result.holds
  } finally {
    await prepared.close()
  }
}

const parsed = parseOptions(OPTIONS, process.argv.slice(2), process.env)
switch (parsed.kind) {
  case 'help':
    process.stdout.write(
      `npm run bench -- QUESTION\n\n${describeOptions(OPTIONS)}\n\nquestions: ${questions().join(', ')}\n`,
    )
    break
  case 'invalid':
    for (const error of parsed.errors) process.stderr.write(`bench: ${error}\n`)
    process.exitCode = EX_USAGE
    break
  case 'ok':
    try {
      const question = await load(parsed.positional)
      await runUntilSignal(async (signal) => {
        process.exitCode = (await ask(question, parsed.values, signal)) ? 0 : 1
      })
    } catch (error) {
      const usage = error instanceof UsageError
      process.stderr.write(`bench: ${usage ? error.message : (error as Error).stack}\n`)
      process.exitCode = usage ? EX_USAGE : 1
    }
    break
}
