/* Speech ids from given hidden states, through the C interface.

   speech_ids_c bundle/speech_head.bin HIDDEN NUM_PROMPT: HIDDEN holds float32 rows of H, hidden state plus text
   embedding of each backbone position. The first NUM_PROMPT rows are the prompt; each row after it gives a line of ids.
 */
#include <facrt/facrt.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char* what) {
    fprintf(stderr, "speech_ids_c: %s\n", what);
    return 2;
}

/* [*num_rows, row_size]; NULL when the file cannot be read or holds no whole number of rows. */
static float* read_rows(const char* path, size_t row_size, size_t* num_rows) {
    FILE* file = fopen(path, "rb");
    float* rows = NULL;
    long size = -1;
    if (file == NULL) return NULL;
    if (fseek(file, 0, SEEK_END) == 0) size = ftell(file);
    if (size > 0 && (size_t)size % (row_size * sizeof(float)) == 0) rows = malloc((size_t)size);
    if (rows != NULL) {
        rewind(file);
        *num_rows = (size_t)size / (row_size * sizeof(float));
        if (fread(rows, row_size * sizeof(float), *num_rows, file) != *num_rows) {
            free(rows);
            rows = NULL;
        }
    }
    fclose(file);
    return rows;
}

static int generate(facrt_speech_head* head, facrt_sampler* sampler, const float* rows, size_t num_rows,
                    size_t num_prompt, int64_t* tokens) {
    facrt_sampling_options sampling = facrt_default_sampling_options();
    facrt_speech_head_info info;
    sampling.greedy = 1;
    sampling.repetition_penalty = 1.2f;
    if (facrt_speech_head_get_info(head, &info) != FACRT_OK) return fail(facrt_last_error());
    /* the group of a prompt's last position is discarded: the first speech comes with the first step */
    if (facrt_speech_head_prefill(head, rows, num_prompt, sampler, &sampling, tokens) != FACRT_OK) {
        return fail(facrt_last_error());
    }
    for (size_t row = num_prompt; row < num_rows; ++row) {
        const float* u = rows + row * info.hidden_size;
        if (facrt_speech_head_group(head, u, sampler, &sampling, tokens) != FACRT_OK ||
            facrt_sampler_remember(sampler, tokens, info.group_size) != FACRT_OK) {
            return fail(facrt_last_error());
        }
        for (size_t i = 0; i < info.group_size; ++i) printf(i == 0 ? "%lld" : " %lld", (long long)tokens[i]);
        printf("\n");
    }
    return 0;
}

int main(int argc, char** argv) {
    facrt_speech_head* head = NULL;
    facrt_sampler* sampler = NULL;
    facrt_speech_head_info info;
    float* rows = NULL;
    int64_t* tokens = NULL;
    size_t num_rows = 0, num_prompt = 0;
    int code = 2;

    if (argc != 4) return fail("usage: speech_ids_c bundle/speech_head.bin HIDDEN NUM_PROMPT");
    if (facrt_speech_head_open(argv[1], NULL, &head) != FACRT_OK || facrt_sampler_create(0, &sampler) != FACRT_OK ||
        facrt_speech_head_get_info(head, &info) != FACRT_OK) {
        fail(facrt_last_error());
    } else {
        num_prompt = strtoul(argv[3], NULL, 10);
        rows = read_rows(argv[2], info.hidden_size, &num_rows);
        tokens = malloc(info.group_size * sizeof *tokens);
        if (rows == NULL || tokens == NULL) {
            fail("HIDDEN cannot be read, or is no whole number of float32 rows of H");
        } else if (num_prompt < 1 || num_prompt > num_rows) {
            fail("NUM_PROMPT must be 1 .. the rows of HIDDEN");
        } else {
            code = generate(head, sampler, rows, num_rows, num_prompt, tokens);
        }
    }
    free(tokens);
    free(rows);
    facrt_sampler_destroy(sampler);
    facrt_speech_head_close(head);
    return code;
}
