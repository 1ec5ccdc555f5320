#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <utility>

namespace facrt {

// An array of zeros at a page boundary, whose pages take memory when they are first written.
template <class Item>
class ZeroedBuffer {
  public:
    ZeroedBuffer() = default;
    explicit ZeroedBuffer(std::size_t size) : size_bytes_(size * sizeof(Item)) {
        if (size_bytes_ == 0) return;
        void* address =
            ::mmap(nullptr, size_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (address == MAP_FAILED) throw std::bad_alloc();
        data_ = static_cast<Item*>(address);
    }
    ~ZeroedBuffer() {
        if (data_ != nullptr) ::munmap(data_, size_bytes_);
    }
    ZeroedBuffer(ZeroedBuffer&& other) noexcept { *this = std::move(other); }
    ZeroedBuffer& operator=(ZeroedBuffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_bytes_, other.size_bytes_);
        return *this;
    }

    Item* data() { return data_; }
    const Item* data() const { return data_; }

  private:
    Item* data_ = nullptr;
    std::size_t size_bytes_ = 0;
};

}  // namespace facrt
