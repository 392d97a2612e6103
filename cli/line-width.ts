// How wide a line may be: the terminal's own width, so that it does not break lines by itself, else what fits anywhere.

import { LINE_WIDTH } from '../lib/text-table.ts'

export const lineWidth = (): number => (process.stdout.isTTY && process.stdout.columns) || LINE_WIDTH
