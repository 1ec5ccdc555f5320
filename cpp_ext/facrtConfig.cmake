# Targets: facrt::static and facrt::shared, both with the C++ headers (C++20) and the C header facrt/facrt.h.
include(CMakeFindDependencyMacro)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/facrtTargets.cmake)
