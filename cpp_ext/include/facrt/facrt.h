/* The speech head's refinement loop for C and whatever can call C: opaque handles, status codes, no exceptions.

   A handle belongs to one thread at a time; different handles may be used by different threads at once. A call that
   fails leaves its handle as it was and writes nothing through its result pointers; facrt_last_error() says why. */
#ifndef FACRT_FACRT_H
#define FACRT_FACRT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum facrt_status {
    FACRT_OK = 0,
    FACRT_BAD_ARGUMENT = 1, /* NULL, a wrong size, a value out of range, NaN or infinity */
    FACRT_CACHE_FULL = 2,   /* more positions than max_positions */
    FACRT_BAD_FILE = 3,     /* no usable speech head file, or FACRT_ISA names what this processor cannot run */
    FACRT_SYSTEM_ERROR = 4, /* the operating system refused: no such file, no permission, no threads */
    FACRT_OUT_OF_MEMORY = 5,
    FACRT_INTERNAL_ERROR = 6 /* a fault of facrt */
} facrt_status;

typedef enum facrt_cache_format { FACRT_CACHE_FP32 = 0, FACRT_CACHE_FP16 = 1, FACRT_CACHE_INT8 = 2 } facrt_cache_format;

typedef struct facrt_speech_head facrt_speech_head;
typedef struct facrt_sampler facrt_sampler;

typedef struct facrt_speech_head_options {
    size_t num_threads;   /* >= 1 */
    size_t max_positions; /* backbone positions that the KV cache may hold; memory is taken as they are used */
    int32_t cache;        /* a facrt_cache_format: how keys and values are stored */
} facrt_speech_head_options;

typedef struct facrt_sampling_options {
    float temperature;        /* > 0 */
    int64_t top_k;            /* >= 0, 0 = off */
    double top_p;             /* 0 < top_p <= 1, 1 = off */
    float repetition_penalty; /* > 0, 1 = off */
    int32_t greedy;           /* 1: the largest penalised logit; temperature, top_k and top_p are unused */
} facrt_sampling_options;

typedef struct facrt_speech_head_info {
    size_t hidden_size;   /* H, of the backbone */
    size_t group_size;    /* tokens per backbone position */
    size_t codebook_size; /* K */
    size_t max_positions;
    const char* format; /* of the weights: "fp32", "int8", ...; never freed */
    const char* isa;    /* "portable", "avx2", ...; never freed */
} facrt_speech_head_info;

/* "0.1.0" */
const char* facrt_version(void);

/* One sentence about this thread's newest failure, "" before the first; valid until the thread's next failure. */
const char* facrt_last_error(void);

facrt_speech_head_options facrt_default_speech_head_options(void); /* 1 thread, 4096 positions, fp32 */
facrt_sampling_options facrt_default_sampling_options(void);       /* all off */

/* Maps a bundle's speech_head.bin. options: NULL for the defaults. *head is closed by facrt_speech_head_close. */
facrt_status facrt_speech_head_open(const char* path, const facrt_speech_head_options* options,
                                    facrt_speech_head** head);
void facrt_speech_head_close(facrt_speech_head* head); /* NULL is allowed */

facrt_status facrt_speech_head_get_info(const facrt_speech_head* head, facrt_speech_head_info* info);
facrt_status facrt_speech_head_num_positions(const facrt_speech_head* head, size_t* num_positions);

/* The prompt. u: [num_positions, H] hidden state plus text embedding of each position, row-major; tokens: room for
   group_size, those of the last position. sampling: NULL for the defaults. */
facrt_status facrt_speech_head_prefill(facrt_speech_head* head, const float* u, size_t num_positions,
                                       facrt_sampler* sampler, const facrt_sampling_options* sampling, int64_t* tokens);

/* The beginning of a prompt, that facrt_speech_head_prefill continues: nothing is chosen. */
facrt_status facrt_speech_head_extend(facrt_speech_head* head, const float* u, size_t num_positions);

/* One backbone step. u: [H]; tokens: room for group_size. */
facrt_status facrt_speech_head_group(facrt_speech_head* head, const float* u, facrt_sampler* sampler,
                                     const facrt_sampling_options* sampling, int64_t* tokens);

/* Forgets every backbone position from `position` on; 0 forgets everything. */
facrt_status facrt_speech_head_truncate(facrt_speech_head* head, size_t position);

/* *logits: [K] of sub-step i < group_size of the newest group, valid until the next one. */
facrt_status facrt_speech_head_logits(const facrt_speech_head* head, size_t i, const float** logits);

/* The random state, and the set of ids that the repetition penalty applies to. */
facrt_status facrt_sampler_create(uint64_t seed, facrt_sampler** sampler);
void facrt_sampler_destroy(facrt_sampler* sampler); /* NULL is allowed */
facrt_status facrt_sampler_remember(facrt_sampler* sampler, const int64_t* ids, size_t num_ids);
facrt_status facrt_sampler_forget(facrt_sampler* sampler);

#ifdef __cplusplus
}
#endif

#endif
