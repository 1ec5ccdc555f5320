#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace facrt {

// A whole file, read-only, in the address space: pages are read when touched and never copied (POSIX mmap).
class MappedFile {
  public:
    // Throws std::system_error when it cannot be opened or mapped, std::invalid_argument when it is no regular file.
    explicit MappedFile(const std::filesystem::path& path);
    ~MappedFile();

    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    std::span<const std::byte> bytes() const { return bytes_; }  // [file size], valid while this object lives

  private:
    std::span<const std::byte> bytes_;
};

}  // namespace facrt
