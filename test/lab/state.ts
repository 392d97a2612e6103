// What a lab keeps on the machine beside its kernel objects: the lock of its supervisor, and its description, which
// `exec`, `status` and the rest read.

import { linkSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { UsageError } from '../../lib/net/lifetime.ts'
import { LABS_DIR, pathsOf } from './names.ts'
import type { Topology } from './topology.ts'

/** A process, told from a later one with the same number by when it started (clock ticks since boot). */
export type Owner = { readonly pid: number; readonly startTime: string }

export type LabState = {
  readonly state: 'starting' | 'running'
  readonly startedAt: number
  /** From the start of `up` until everything ran. */
  readonly startMs?: number
  readonly topology: Topology
  /** The folder that the relay serves. */
  readonly manifests: string
}

/** Takes the lock of a lab. @returns the living owner that has it, or undefined when it is ours now. */
export function takeLock(id: string): Owner | undefined {
  const { lock } = pathsOf(id)
  const draft = `${lock}.${process.pid}`
  const self: Owner = { pid: process.pid, startTime: startTimeOf(process.pid) ?? '' }
  writeInLabs(draft, JSON.stringify(self))
  try {
    // A link appears whole and at once, and only where there is none.
    linkSync(draft, lock)
    return undefined
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    const owner = ownerOf(id)
    if (owner !== undefined) return owner
    renameSync(draft, lock)
    return undefined
  } finally {
    rmSync(draft, { force: true })
  }
}

/** The end of the last lab removes the folder, perhaps at this moment. */
function writeInLabs(file: string, text: string, attempts = 3): void {
  try {
    mkdirSync(LABS_DIR, { recursive: true })
    writeFileSync(file, text)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || attempts === 1) throw error
    writeInLabs(file, text, attempts - 1)
  }
}

/** The living supervisor of a lab. */
export function ownerOf(id: string): Owner | undefined {
  const owner = readJson<Owner>(pathsOf(id).lock)
  return owner !== undefined && isAlive(owner) ? owner : undefined
}

export const isAlive = ({ pid, startTime }: Owner) => startTimeOf(pid) === startTime

/** @throws UsageError where there is no such lab. */
export function readState(id: string): LabState {
  const state = readJson<LabState>(pathsOf(id).lab)
  if (state !== undefined) return state
  const others = labIds()
  const known = others.length === 0 ? 'there is none' : `there are ${others.join(', ')}`
  throw new UsageError(`--id ${id}: no such lab (${known}); start it with: npm run lab -- up --id ${id}`)
}

export function writeState(id: string, state: LabState): void {
  const { lab } = pathsOf(id)
  writeFileSync(`${lab}.new`, JSON.stringify(state))
  renameSync(`${lab}.new`, lab)
}

/** Labs that left anything in the labs' folder, living or dead. */
export function labIds(): readonly string[] {
  try {
    return [...new Set(readdirSync(LABS_DIR).map((name) => name.split('.')[0]!))].toSorted()
  } catch {
    return []
  }
}

function readJson<T>(file: string): T | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as T
  } catch {
    return undefined
  }
}

/** Field 22 of /proc/PID/stat; undefined for a process that is not there or is a zombie. */
export function startTimeOf(pid: number): string | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ')
    return fields[0] === 'Z' ? undefined : fields[19]
  } catch {
    return undefined
  }
}
