// Speech ids from given hidden states, through the C++ classes.
//
// speech_ids_cpp bundle/speech_head.bin HIDDEN NUM_PROMPT: HIDDEN holds float32 rows of H, hidden state plus text
// embedding of each backbone position. The first NUM_PROMPT rows are the prompt; each row after it gives a line of ids.
#include <facrt/sampler.hpp>
#include <facrt/speech_head.hpp>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

std::vector<float> read_floats(const std::filesystem::path& path) {
    std::vector<float> values(std::filesystem::file_size(path) / sizeof(float));
    std::ifstream file(path, std::ios::binary);
    const auto size = static_cast<std::streamsize>(values.size() * sizeof(float));
    if (!file.read(reinterpret_cast<char*>(values.data()), size))
        throw std::runtime_error(path.string() + " is cut off");
    return values;
}

void generate(const std::filesystem::path& head_file, std::span<const float> u, std::size_t num_prompt) {
    facrt::SpeechHeadLoop loop(head_file, {.num_threads = std::max(1u, std::thread::hardware_concurrency())});
    const facrt::SamplingOptions sampling{.repetition_penalty = 1.2f, .greedy = true};
    const std::size_t hidden_size = loop.dims().hidden_size;
    if (num_prompt < 1 || num_prompt * hidden_size > u.size()) {
        throw std::invalid_argument("NUM_PROMPT must be 1 .. the rows of HIDDEN");
    }
    facrt::Sampler sampler(0);
    std::vector<std::int64_t> tokens(loop.dims().group_size);

    // the group of a prompt's last position is discarded: the first speech comes with the first step
    loop.prefill(u.first(num_prompt * hidden_size), sampler, sampling, tokens);
    for (std::size_t start = num_prompt * hidden_size; start < u.size(); start += hidden_size) {
        loop.group(u.subspan(start, hidden_size), sampler, sampling, tokens);
        sampler.remember(tokens);
        for (std::size_t i = 0; i < tokens.size(); ++i) std::cout << (i == 0 ? "" : " ") << tokens[i];
        std::cout << "\n";
    }
}

}  // namespace

int main(int argc, char** argv) {
    try {
        if (argc != 4) throw std::invalid_argument("usage: speech_ids_cpp bundle/speech_head.bin HIDDEN NUM_PROMPT");
        generate(argv[1], read_floats(argv[2]), std::stoul(argv[3]));
        return 0;
    } catch (const std::exception& error) {
        std::cerr << "speech_ids_cpp: " << error.what() << "\n";
        return 2;
    }
}
