// The parts of dns-packet that are used; it brings no types of its own.

declare module 'dns-packet' {
  type Decoded = {
    readonly questions: readonly { readonly name: string; readonly type: string; readonly class: string }[]
    readonly answers: readonly { readonly name: string; readonly type: string }[]
    readonly additionals: readonly {
      readonly type: string
      readonly udpPayloadSize?: number
      readonly flag_do?: boolean
    }[]
    readonly flag_rd: boolean
    readonly flag_cd: boolean
  }
  const packet: {
    decode(bytes: Buffer): Decoded
    encode(message: object): Buffer
    readonly answer: { encode(record: object): Buffer }
    readonly name: { encodingLength(name: string): number }
  }
  export default packet
}
