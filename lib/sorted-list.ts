// Items in order, in pieces: a list of tens of thousands in which one item changed has all its pieces but one in common with
// the list before it. The next list costs a piece then, and so does finding what is different between the two.

/** Of one piece. */
const PIECE_MAX = 128

export type Order<T> = (a: T, b: T) => number

/** Never changes. */
export class SortedList<T> implements Iterable<T> {
  readonly length: number
  /** None is empty. */
  readonly pieces: readonly (readonly T[])[]

  constructor(pieces: readonly (readonly T[])[]) {
    this.pieces = pieces
    this.length = pieces.reduce((sum, piece) => sum + piece.length, 0)
  }

  *[Symbol.iterator](): Generator<T> {
    for (const piece of this.pieces) yield* piece
  }

  /** @param order of an item and what is looked for. @returns the first that is equal to it. */
  find(order: (item: T) => number): T | undefined {
    const piece = this.pieces[indexOf(this.pieces, (each) => order(each.at(-1)!) < 0)]
    const item = piece?.[indexOf(piece, (each) => order(each) < 0)]
    return item !== undefined && order(item) === 0 ? item : undefined
  }
}
export const EMPTY = new SortedList<never>([])

/** What lists are taken of. `Key` is the part of an item that the order is about; no two items are equal in it. */
export class SortedItems<Key, T extends Key> {
  readonly #order: Order<Key>
  readonly #pieces: T[][] = []
  /** Pieces that are in no list yet. */
  readonly #own = new Set<T[]>()
  #list: SortedList<T> | undefined

  constructor(order: Order<Key>) {
    this.#order = order
  }

  get(key: Key): T | undefined {
    const piece = this.#pieces[this.#pieceOf(key)]
    const item = piece?.[this.#placeIn(piece, key)]
    return item !== undefined && this.#order(item, key) === 0 ? item : undefined
  }

  set(item: T): void {
    const last = this.#pieces.length - 1
    const at = this.#pieceOf(item)
    if (at > last) {
      // Behind all others, which is how they come from an API.
      if (last < 0 || this.#pieces[last]!.length >= PIECE_MAX) this.#insert(this.#pieces.length, [item])
      else this.#writable(last).push(item)
      return
    }
    const piece = this.#writable(at)
    const place = this.#placeIn(piece, item)
    piece.splice(place, this.#order(piece[place]!, item) === 0 ? 1 : 0, item)
    if (piece.length > PIECE_MAX) this.#insert(at + 1, piece.splice(PIECE_MAX >> 1))
  }

  delete(key: Key): void {
    if (this.get(key) === undefined) return
    const at = this.#pieceOf(key)
    const piece = this.#writable(at)
    piece.splice(this.#placeIn(piece, key), 1)
    const next = this.#pieces[at + 1]
    if (next !== undefined && piece.length + next.length <= PIECE_MAX >> 1) piece.push(...this.#take(at + 1))
    else if (piece.length === 0) this.#take(at)
  }

  /** The same value while nothing changed. */
  list(): SortedList<T> {
    this.#own.clear()
    return (this.#list ??= new SortedList([...this.#pieces]))
  }

  /** The first whose last item does not come before the key. */
  #pieceOf(key: Key): number {
    const last = this.#pieces.at(-1)
    if (last !== undefined && this.#order(last.at(-1)!, key) < 0) return this.#pieces.length
    return indexOf(this.#pieces, (piece) => this.#order(piece.at(-1)!, key) < 0)
  }
  #placeIn(piece: readonly T[], key: Key): number {
    return indexOf(piece, (item) => this.#order(item, key) < 0)
  }

  #writable(at: number): T[] {
    this.#list = undefined
    const piece = this.#pieces[at]!
    if (this.#own.has(piece)) return piece
    const copy = piece.slice()
    this.#own.add(copy)
    this.#pieces[at] = copy
    return copy
  }
  #insert(at: number, piece: T[]): void {
    this.#list = undefined
    this.#own.add(piece)
    this.#pieces.splice(at, 0, piece)
  }
  #take(at: number): readonly T[] {
    const [piece] = this.#pieces.splice(at, 1)
    this.#own.delete(piece!)
    return piece!
  }
}

/** @param items in any order; of those that are equal in it the last one counts. */
export function sortedList<T>(items: Iterable<T>, order: Order<T>): SortedList<T> {
  const sorted = new SortedItems<T, T>(order)
  for (const item of items) sorted.set(item)
  return sorted.list()
}

/** What an item was and is: never undefined at once, and never the same value. */
export type Change<T> = readonly [had: T | undefined, now: T | undefined]

/** In order. Pieces that both lists have in common are not looked into. */
export function* changesBetween<T>(before: SortedList<T>, after: SortedList<T>, order: Order<T>): Generator<Change<T>> {
  if (before === after) return
  const [old, young] = [new Cursor(before.pieces), new Cursor(after.pieces)]
  for (;;) {
    while (old.isAtStart && young.isAtStart && old.piece !== undefined && old.piece === young.piece) {
      old.skip()
      young.skip()
    }
    const [had, now] = [old.item, young.item]
    if (had === undefined && now === undefined) return
    const apart = had === undefined ? 1 : now === undefined ? -1 : had === now ? 0 : order(had, now)
    if (apart <= 0) old.next()
    if (apart >= 0) young.next()
    if (had !== now) yield [apart <= 0 ? had : undefined, apart >= 0 ? now : undefined]
  }
}

class Cursor<T> {
  readonly #pieces: readonly (readonly T[])[]
  #piece = 0
  #place = 0

  constructor(pieces: readonly (readonly T[])[]) {
    this.#pieces = pieces
  }
  get isAtStart(): boolean {
    return this.#place === 0
  }
  get piece(): readonly T[] | undefined {
    return this.#pieces[this.#piece]
  }
  get item(): T | undefined {
    return this.#pieces[this.#piece]?.[this.#place]
  }
  next(): void {
    if (++this.#place === this.#pieces[this.#piece]!.length) this.skip()
  }
  skip(): void {
    this.#piece++
    this.#place = 0
  }
}

/** The index of the first that is not before; their number if all are. */
function indexOf<T>(sorted: readonly T[], isBefore: (item: T) => boolean): number {
  let [low, high] = [0, sorted.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (isBefore(sorted[middle]!)) low = middle + 1
    else high = middle
  }
  return low
}
