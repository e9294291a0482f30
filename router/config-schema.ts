// The shape of signalbox.yaml, field by field, with defaults: what a person may write. A part with settings of its own keeps
// their schema in its own file and has one line here. Loading, and what no schema can say, is config.ts.
import { z } from 'zod'
import { captureModeSchema, captureSchema } from './capture/settings.ts'
import { textMax } from './policy/record.ts'

const timeoutMsMax = 3_600_000
const timeout = (otherwise: number) => z.int().min(1).max(timeoutMsMax).default(otherwise)
const name = z.string().min(1).max(200)
/** Names that a header can carry. */
const modelName = name
  .regex(/^[\x21-\x7e]+$/, 'wanted printable ASCII without spaces')
  .refine((text) => text !== 'auto', {
    error: "'auto' is what clients ask for when the policy is to choose",
  })
const megabytesMax = 1_000_000
const usd = z.number().min(0)
const featureName = z.string().regex(/^[a-z][a-z0-9_]*$/, 'wanted a name in snake_case')

export const configSchema = z.strictObject({
  listen: z
    .strictObject({ host: z.string().default('127.0.0.1'), port: z.int().min(0).max(65_535).default(8080) })
    .prefault({}),
  /** Client keys. Without any, the router listens on loopback only. */
  keys: z
    .array(
      z
        .strictObject({
          name,
          sha256: z
            .string()
            .regex(/^[0-9a-f]{64}$/, 'wanted 64 hex digits')
            .optional(),
          key_env: z.string().optional(),
          tenant: z.string().max(textMax.tenant).default(''),
          tier: z.string().max(textMax.tier).default(''),
          /** How much of this client's texts is captured, in place of what `capture:` says. */
          capture: captureModeSchema.optional(),
        })
        .refine((key) => (key.sha256 === undefined) !== (key.key_env === undefined), {
          error: 'wanted either sha256 (of the key) or key_env (the variable that holds it)',
        }),
    )
    .default([]),
  /** Who may change the policy at run time; without it there is no such endpoint. */
  admin: z.strictObject({ token_env: name }).nullable().default(null),
  telemetry: z
    .union([
      z.literal(false),
      z.strictObject({
        endpoint: z.url({ protocol: /^https?$/ }).default('http://127.0.0.1:4318'),
        service_name: name.default('signalbox'),
        /** The variable that holds the bearer token that the collector wants. */
        token_env: name.optional(),
        /** Where batches are kept until the collector has them; false keeps them in memory only. */
        spool: z
          .union([
            z.literal(false),
            z.strictObject({
              /** By default `.signalbox/spool/<port>`, so that two routers of one folder do not meet. */
              folder: z.string().min(1).optional(),
              megabytes_max: z.int().min(1).max(megabytesMax).default(1024),
              when_full: z.enum(['drop', 'refuse']).default('drop'),
            }),
          ])
          .prefault({}),
      }),
    ])
    .prefault({}),
  capture: captureSchema.prefault({}),
  /** The file of evaluators with which `signalbox up` judges captured answers in the background. */
  evaluators: z.string().min(1).optional(),
  policy: z.union([name, z.looseObject({ name })]),
  providers: z
    .array(
      z.strictObject({
        name,
        kind: z.literal('openai'),
        base_url: z.url({ protocol: /^https?$/ }).refine((url) => !/[?#]|\/\/[^/]*@/.test(url), {
          error: 'wanted an address without a query, a fragment or credentials; keys go into api_key_env',
        }),
        api_key_env: z.string().optional(),
        /** Whether the provider is to continue the trace: it then gets a `traceparent` naming the attempt's span. */
        pass_traceparent: z.boolean().default(false),
        timeouts_ms: z
          .strictObject({
            connect: timeout(3000),
            first_byte: timeout(60_000),
            idle: timeout(30_000),
            total: timeout(600_000),
          })
          .prefault({}),
      }),
    )
    .min(1),
  models: z
    .array(
      z.strictObject({
        name: modelName,
        provider: name,
        upstream_model: name.optional(),
        context_tokens_max: z.int().min(1).optional(),
        price: z
          .union([
            z.strictObject({
              input_usd_per_mtok: usd,
              output_usd_per_mtok: usd,
              cached_input_usd_per_mtok: usd.optional(),
            }),
            z.strictObject({ book: z.string().regex(/^[^/]+\/.+$/, 'wanted provider/model, as in openai/gpt-5-mini') }),
          ])
          .optional(),
        features: z.record(featureName, z.union([z.number(), z.string().max(500), z.boolean()])).default({}),
      }),
    )
    .min(1)
    .max(1000),
  collector: z
    .strictObject({
      /** Where spans, logs and metrics are taken. Off loopback there must be a token. */
      host: z.string().min(1).default('127.0.0.1'),
      /** The variable that holds the bearer token that senders must show. */
      token_env: name.optional(),
      data: z.string().default('.signalbox/data'),
      /** Whether what is acknowledged survives a power cut, too; without it, a crash of the process only. */
      fsync: z.boolean().default(true),
      clickhouse_url: z.url().nullable().default(null),
      otlp_port: z.int().min(0).max(65_535).default(4318),
      clickhouse_port: z.int().min(0).max(65_535).default(8123),
      /** Who may ask the embedded engine. With none it is served on loopback only, and all but `default` read only. */
      clickhouse_users: z
        .array(z.strictObject({ name, password_env: name, write: z.boolean().default(false) }))
        .default([]),
    })
    .prefault({}),
})

/** signalbox.yaml once parsed, with every default filled in. */
export type ConfigFile = z.infer<typeof configSchema>
