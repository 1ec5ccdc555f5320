#include <cstdio>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>

#include "facrt/facrt.h"
#include "facrt/sampler.hpp"
#include "facrt/speech_head.hpp"

struct facrt_speech_head {
    facrt::SpeechHeadLoop loop;
};

struct facrt_sampler {
    facrt::Sampler sampler;
};

namespace {

thread_local char last_error[1024] = "";  // no allocation: it must work when memory is out

facrt_status fail(facrt_status status, const char* sentence) {
    std::snprintf(last_error, sizeof last_error, "%s", sentence);
    return status;
}

template <class Call>
facrt_status guarded(Call call) noexcept {
    try {
        call();
        return FACRT_OK;
    } catch (const std::length_error& error) {
        return fail(FACRT_CACHE_FULL, error.what());
    } catch (const std::logic_error& error) {  // invalid_argument, out_of_range
        return fail(FACRT_BAD_ARGUMENT, error.what());
    } catch (const std::system_error& error) {
        return fail(FACRT_SYSTEM_ERROR, error.what());
    } catch (const std::bad_alloc&) {
        return fail(FACRT_OUT_OF_MEMORY, "memory is out");
    } catch (const std::runtime_error& error) {
        return fail(FACRT_BAD_FILE, error.what());
    } catch (...) {
        return fail(FACRT_INTERNAL_ERROR, "an unknown exception: a fault of facrt");
    }
}

template <class Pointer>
void require(Pointer pointer, const char* name) {
    if (pointer == nullptr) throw std::invalid_argument(std::string(name) + " is NULL, must point to something");
}

std::span<const float> rows(const facrt_speech_head* head, const float* u, std::size_t num_positions) {
    require(head, "head");
    require(u, "u");
    const std::size_t hidden_size = head->loop.dims().hidden_size;
    if (num_positions == 0) throw std::invalid_argument("num_positions 0 must be >= 1");
    if (num_positions > head->loop.max_positions()) {  // before it is multiplied
        throw std::length_error(std::to_string(num_positions) + " positions do not fit the cache of " +
                                std::to_string(head->loop.max_positions()));
    }
    return {u, num_positions * hidden_size};
}

std::span<std::int64_t> group_of(const facrt_speech_head* head, std::int64_t* tokens) {
    require(tokens, "tokens");
    return {tokens, head->loop.dims().group_size};
}

facrt::SpeechHeadOptions converted(const facrt_speech_head_options& options) {
    if (options.cache < FACRT_CACHE_FP32 || options.cache > FACRT_CACHE_INT8) {
        throw std::invalid_argument("cache " + std::to_string(options.cache) + " must be a facrt_cache_format");
    }
    return {options.num_threads, options.max_positions, static_cast<facrt::CacheFormat>(options.cache)};
}

facrt::SamplingOptions converted(const facrt_sampling_options* given) {
    const facrt_sampling_options options = given != nullptr ? *given : facrt_default_sampling_options();
    return {options.temperature, options.top_k, options.top_p, options.repetition_penalty, options.greedy != 0};
}

}  // namespace

extern "C" {

const char* facrt_version(void) {
    return FACRT_VERSION;
}

const char* facrt_last_error(void) {
    return last_error;
}

facrt_speech_head_options facrt_default_speech_head_options(void) {
    const facrt::SpeechHeadOptions options;
    return {options.num_threads, options.max_positions, static_cast<std::int32_t>(options.cache)};
}

facrt_sampling_options facrt_default_sampling_options(void) {
    const facrt::SamplingOptions options;
    return {options.temperature, options.top_k, options.top_p, options.repetition_penalty, options.greedy};
}

facrt_status facrt_speech_head_open(const char* path, const facrt_speech_head_options* options,
                                    facrt_speech_head** head) {
    return guarded([&] {
        require(path, "path");
        require(head, "head");
        const facrt_speech_head_options given = options != nullptr ? *options : facrt_default_speech_head_options();
        *head = new facrt_speech_head{facrt::SpeechHeadLoop(path, converted(given))};
    });
}

void facrt_speech_head_close(facrt_speech_head* head) {
    delete head;
}

facrt_status facrt_speech_head_get_info(const facrt_speech_head* head, facrt_speech_head_info* info) {
    return guarded([&] {
        require(head, "head");
        require(info, "info");
        const facrt::SpeechHeadDims& dims = head->loop.dims();
        *info = {dims.hidden_size,
                 dims.group_size,
                 dims.codebook_size,
                 head->loop.max_positions(),
                 name_of(head->loop.format()).data(),
                 head->loop.isa().data()};  // both of literals
    });
}

facrt_status facrt_speech_head_num_positions(const facrt_speech_head* head, size_t* num_positions) {
    return guarded([&] {
        require(head, "head");
        require(num_positions, "num_positions");
        *num_positions = head->loop.num_positions();
    });
}

facrt_status facrt_speech_head_prefill(facrt_speech_head* head, const float* u, size_t num_positions,
                                       facrt_sampler* sampler, const facrt_sampling_options* sampling,
                                       int64_t* tokens) {
    return guarded([&] {
        require(sampler, "sampler");
        const std::span<const float> in = rows(head, u, num_positions);
        head->loop.prefill(in, sampler->sampler, converted(sampling), group_of(head, tokens));
    });
}

facrt_status facrt_speech_head_extend(facrt_speech_head* head, const float* u, size_t num_positions) {
    return guarded([&] {
        const std::span<const float> in = rows(head, u, num_positions);
        head->loop.extend(in);
    });
}

facrt_status facrt_speech_head_group(facrt_speech_head* head, const float* u, facrt_sampler* sampler,
                                     const facrt_sampling_options* sampling, int64_t* tokens) {
    return guarded([&] {
        require(sampler, "sampler");
        const std::span<const float> in = rows(head, u, 1);
        head->loop.group(in, sampler->sampler, converted(sampling), group_of(head, tokens));
    });
}

facrt_status facrt_speech_head_truncate(facrt_speech_head* head, size_t position) {
    return guarded([&] {
        require(head, "head");
        head->loop.truncate(position);
    });
}

facrt_status facrt_speech_head_logits(const facrt_speech_head* head, size_t i, const float** logits) {
    return guarded([&] {
        require(head, "head");
        require(logits, "logits");
        *logits = head->loop.logits(i).data();
    });
}

facrt_status facrt_sampler_create(uint64_t seed, facrt_sampler** sampler) {
    return guarded([&] {
        require(sampler, "sampler");
        *sampler = new facrt_sampler{facrt::Sampler(seed)};
    });
}

void facrt_sampler_destroy(facrt_sampler* sampler) {
    delete sampler;
}

facrt_status facrt_sampler_remember(facrt_sampler* sampler, const int64_t* ids, size_t num_ids) {
    return guarded([&] {
        require(sampler, "sampler");
        if (num_ids > 0) require(ids, "ids");
        sampler->sampler.remember({ids, num_ids});
    });
}

facrt_status facrt_sampler_forget(facrt_sampler* sampler) {
    return guarded([&] {
        require(sampler, "sampler");
        sampler->sampler.forget();
    });
}

}  // extern "C"
