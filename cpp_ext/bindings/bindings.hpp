#pragma once

#include <nanobind/nanobind.h>

namespace facrt::bindings {

void add_log_mel(nanobind::module_& m);
void add_embedding_table(nanobind::module_& m);
void add_hidden_split(nanobind::module_& m);
void add_sampler(nanobind::module_& m);
void add_backbone(nanobind::module_& m);
void add_speech_head(nanobind::module_& m);

}  // namespace facrt::bindings
