#pragma once

#include <vector>

#include "../src/kernels/kernels.hpp"

// Instruction sets that this machine may lack, with the instruction in question written out in others.
std::vector<const facrt::kernels::Kernels*> emulated_kernels();
