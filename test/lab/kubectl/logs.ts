// kubectl logs.

import { brief, check, until, type Case } from './session.ts'

export const LOG_LINES = 5_000

export const LOGS: readonly Case[] = [
  {
    name: 'logs',
    perProtocol: false,
    run: async (session) => {
      const lines = Array.from({ length: LOG_LINES }, (_, index) => `${index + 1}\n`)
      const logs = ['logs', ...session.pod, '-c', 'lines']
      await session.expect(logs, lines.join(''))
      await session.expect([...logs, '--tail=3'], lines.slice(-3).join(''))
      await session.expect([...logs, '--limit-bytes=10'], lines.join('').slice(0, 10))
      const stamped = await session.expect([...logs, '--timestamps', '--tail=1'], new RegExp(`^\\S+Z ${LOG_LINES}\n$`))
      check(!Number.isNaN(Date.parse(stamped.split(' ')[0]!)), `${brief(stamped)} has no time`)
      await session.expect([...logs, '--since=1h', '--tail=1'], lines.at(-1)!)
      await session.expect(['logs', ...session.pod, '-c', 'ticker', '--since=1s'], /^(tick \d+\n){5,15}$/)
      return `${LOG_LINES} lines whole; --tail, --since, --limit-bytes, --timestamps`
    },
  },
  {
    name: 'logs --previous',
    perProtocol: false,
    run: async (session) => {
      await session.expect(['logs', ...session.pod, '-c', 'crash', '--previous'], 'starts\nlast words\n')
      return 'of the run before'
    },
  },
  {
    name: 'logs -f',
    perProtocol: false,
    run: async (session) => {
      const args = ['logs', '-f', '--tail=1', ...session.pod, '-c', 'ticker']
      const child = session.start(...args)
      const text = await until(child, (seen) => seen.split('\n').length > 6, args)
      const numbers = text
        .trimEnd()
        .split('\n')
        .slice(0, 5)
        .map((line) => Number(line.split(' ')[1]))
      check(
        numbers.every((number, index) => number === numbers[0]! + index),
        `${brief(text)} has gaps`,
      )
      return 'line by line, until Ctrl-C'
    },
  },
]
