// A daemon's metrics for Prometheus. Base units (seconds, bytes), and labels whose values are bounded before the first
// one is counted: a metric cannot grow with what a peer sends. The only user of prom-client.
//
// A hot path counts in a plain variable and hands it over by `counterFrom`, `gaugeFrom` or `gaugesFrom`, which read at scrape
// time.

import PromCounter from 'prom-client/lib/counter.js'
import PromGauge from 'prom-client/lib/gauge.js'
import PromHistogram from 'prom-client/lib/histogram.js'
import PromRegistry from 'prom-client/lib/registry.js'
import { VERSION } from './version.ts'

export type Registry = {
  readonly contentType: string
  /** The exposition text of all metrics. */
  readonly text: () => Promise<string>
  /** Calls back before each scrape: for what is handed over in between too, lest it be lost. */
  readonly onScrape: (update: () => void) => void
  /** prom-client's own, for the makers below. */
  readonly prom: PromRegistry
}

/**
 * What a metric may be labelled with: for each label the list of its values, or how many different ones it may take.
 * Anything else is counted under `other`.
 */
export type LabelBounds = { readonly [label: string]: readonly string[] | number }
export type LabelsOf<B extends LabelBounds> = {
  readonly [L in keyof B]: B[L] extends readonly (infer V extends string)[] ? V : string
}
type LabelArguments<B extends LabelBounds> = keyof B extends never ? [] : [labels: LabelsOf<B>]

export type Counter<B extends LabelBounds = {}> = { readonly add: (by: number, ...labels: LabelArguments<B>) => void }
export type Gauge<B extends LabelBounds = {}> = {
  readonly set: (value: number, ...labels: LabelArguments<B>) => void
  /** Forgets every value, before the gauge is set anew from a snapshot. */
  readonly clear: () => void
}
export type Histogram<B extends LabelBounds = {}> = {
  readonly observe: (value: number, ...labels: LabelArguments<B>) => void
}

/** Seconds from a LAN's round trip to a dead peer's time-out. */
const LATENCY_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10] as const

/** @param daemon `agent`, `gateway` or `relay`; with the version it is the only label of `fulmar_build_info`. */
export function createRegistry(daemon: string): Registry {
  const prom = new PromRegistry()
  const updates: (() => void)[] = []
  const registry: Registry = {
    contentType: prom.contentType,
    text: () => {
      for (const update of updates) update()
      return prom.metrics()
    },
    onScrape: (update) => void updates.push(update),
    prom,
  }
  const info = gauge(registry, 'fulmar_build_info', 'Which daemon of which version this is; always 1', {
    daemon: [daemon],
    version: [VERSION],
  })
  info.set(1, { daemon, version: VERSION })
  return registry
}

/** @param name ends in `_total`. */
export function counter<const B extends LabelBounds = {}>(
  registry: Registry,
  name: string,
  help: string,
  bounds: B = {} as B,
): Counter<B> {
  const bounded = boundsOf(bounds)
  const metric = new PromCounter({ ...describe(registry, 'counter', name, help), labelNames: bounded.names })
  return { add: (by, ...labels) => metric.inc(bounded.apply(labels[0]), by) }
}

export function gauge<const B extends LabelBounds = {}>(
  registry: Registry,
  name: string,
  help: string,
  bounds: B = {} as B,
): Gauge<B> {
  const bounded = boundsOf(bounds)
  const metric = new PromGauge({ ...describe(registry, 'gauge', name, help), labelNames: bounded.names })
  return { set: (value, ...labels) => metric.set(bounded.apply(labels[0]), value), clear: () => metric.reset() }
}

/** @param buckets upper bounds, ascending, in the unit of the name. */
export function histogram<const B extends LabelBounds = {}>(
  registry: Registry,
  name: string,
  help: string,
  bounds: B = {} as B,
  buckets: readonly number[] = LATENCY_BUCKETS,
): Histogram<B> {
  const bounded = boundsOf(bounds)
  const described = describe(registry, 'histogram', name, help)
  const metric = new PromHistogram({ ...described, labelNames: bounded.names, buckets: [...buckets] })
  return { observe: (value, ...labels) => metric.observe(bounded.apply(labels[0]), value) }
}

/** A counter that somebody else keeps: `read` gives its total at scrape time and must never go down. */
export function counterFrom(registry: Registry, name: string, help: string, read: () => number): void {
  new PromCounter({
    ...describe(registry, 'counter', name, help),
    collect() {
      this.reset()
      this.inc(read())
    },
  })
}

/** A gauge read at scrape time. */
export function gaugeFrom(registry: Registry, name: string, help: string, read: () => number): void {
  new PromGauge({
    ...describe(registry, 'gauge', name, help),
    collect() {
      this.set(read())
    },
  })
}

/** One series of a labelled gauge. */
export type Series<L extends string> = { readonly labels: Readonly<Record<L, string>>; readonly value: number }

/** A labelled gauge read at scrape time: a series that is not read any more is gone. @param max of series; more are left out. */
export function gaugesFrom<const L extends string>(
  registry: Registry,
  name: string,
  help: string,
  labels: readonly L[],
  max: number,
  read: () => readonly Series<L>[],
): void {
  new PromGauge({
    ...describe(registry, 'gauge', name, help),
    labelNames: [...labels],
    collect() {
      this.reset()
      for (const series of read().slice(0, max)) this.set(series.labels, series.value)
    },
  })
}

function describe(registry: Registry, kind: 'counter' | 'gauge' | 'histogram', name: string, help: string) {
  if (!/^(fulmar|process)_[a-z0-9_]+$/.test(name)) throw new TypeError(`metric ${name}: is not named fulmar_…`)
  if ((kind === 'counter') !== name.endsWith('_total')) throw new TypeError(`metric ${name}: counters end in _total`)
  if (/_(ms|us|milliseconds|kb|kib|mb|mib|percent)(_|$)/.test(name))
    throw new TypeError(`metric ${name}: is not in a base unit; use seconds, bytes or ratio`)
  return { name, help, registers: [registry.prom] }
}

function boundsOf(bounds: LabelBounds) {
  const names = Object.keys(bounds)
  const seen = new Map<string, Set<string>>(names.map((name) => [name, new Set()]))
  const bounded = (name: string, value: string): string => {
    const bound = bounds[name]!
    if (typeof bound !== 'number') return bound.includes(value) ? value : 'other'
    const values = seen.get(name)!
    if (!values.has(value) && values.size >= bound) return 'other'
    values.add(value)
    return value
  }
  const apply = (labels: Readonly<Record<string, string>> = {}): Record<string, string> =>
    Object.fromEntries(names.map((name) => [name, bounded(name, labels[name] ?? '')]))
  return { names, apply }
}
