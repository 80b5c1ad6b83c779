// Records what a process does to the files of one folder, in order: preloaded (LD_PRELOAD), it stands between the process
// and the C library. It changes nothing.
//
//   DISK_FOLDER  the folder, absolute      DISK_LOG  where the record goes
//
// A record is a line of tab-separated text, `operation name offset length`, and for `write` as many bytes behind it.
// Operations: create, write, truncate (offset is the new size), sync, unlink. The folder itself has the name `.`.

#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <mutex>
#include <string>

namespace {

constexpr int kMaxDescriptors = 4096;
std::string names[kMaxDescriptors];  // of open files in the folder; empty: not one of them
std::recursive_mutex order;          // an operation and its record are one
int log_descriptor = -1;

template <typename Function>
Function real(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

void put(const void* bytes, size_t length) {
  static auto write_ = real<ssize_t (*)(int, const void*, size_t)>("write");
  const char* at = static_cast<const char*>(bytes);
  while (length > 0) {
    ssize_t done = write_(log_descriptor, at, length);
    if (done <= 0) abort();
    at += done;
    length -= done;
  }
}

void record(const char* operation, const std::string& name, off_t offset, size_t length, const void* bytes = nullptr) {
  if (log_descriptor < 0) {
    static auto open_ = real<int (*)(const char*, int, ...)>("open");
    log_descriptor = open_(getenv("DISK_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_descriptor < 0) abort();
  }
  char line[512];
  int size = snprintf(line, sizeof line, "%s\t%s\t%lld\t%zu\n", operation, name.c_str(), (long long)offset, length);
  put(line, size);
  if (bytes != nullptr) put(bytes, length);
}

// The name of a path within the folder; empty where it is elsewhere.
std::string name_in_folder(const char* path) {
  static const char* folder = getenv("DISK_FOLDER");
  if (folder == nullptr || path == nullptr) return "";
  size_t length = strlen(folder);
  if (strncmp(path, folder, length) != 0) return "";
  if (path[length] == '\0') return ".";
  return path[length] == '/' ? std::string(path + length + 1) : "";
}

const std::string& name_of(int descriptor) {
  static const std::string none;
  return descriptor >= 0 && descriptor < kMaxDescriptors ? names[descriptor] : none;
}

int opened(const char* symbol, const char* path, int flags, mode_t mode) {
  auto open_ = real<int (*)(const char*, int, ...)>(symbol);
  std::string name = name_in_folder(path);
  if (name.empty()) return open_(path, flags, mode);
  std::lock_guard<std::recursive_mutex> guard(order);
  bool is_new = access(path, F_OK) != 0;
  int descriptor = open_(path, flags, mode);
  if (descriptor >= kMaxDescriptors) abort();
  if (descriptor >= 0) {
    names[descriptor] = name;
    if (is_new) record("create", name, 0, 0);
    if (flags & O_TRUNC) record("truncate", name, 0, 0);
  }
  return descriptor;
}

ssize_t written_at(const char* symbol, int descriptor, const void* bytes, size_t length, off_t offset) {
  auto write_ = real<ssize_t (*)(int, const void*, size_t, off_t)>(symbol);
  if (name_of(descriptor).empty()) return write_(descriptor, bytes, length, offset);
  std::lock_guard<std::recursive_mutex> guard(order);
  ssize_t done = write_(descriptor, bytes, length, offset);
  if (done > 0) record("write", name_of(descriptor), offset, done, bytes);
  return done;
}

int truncated(const char* symbol, int descriptor, off_t size) {
  auto truncate_ = real<int (*)(int, off_t)>(symbol);
  if (name_of(descriptor).empty()) return truncate_(descriptor, size);
  std::lock_guard<std::recursive_mutex> guard(order);
  int failed = truncate_(descriptor, size);
  if (!failed) record("truncate", name_of(descriptor), size, 0);
  return failed;
}

int synced(const char* symbol, int descriptor) {
  auto sync_ = real<int (*)(int)>(symbol);
  if (name_of(descriptor).empty()) return sync_(descriptor);
  std::lock_guard<std::recursive_mutex> guard(order);
  int failed = sync_(descriptor);
  if (!failed) record("sync", name_of(descriptor), 0, 0);
  return failed;
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = va_arg(rest, mode_t);
  va_end(rest);
  return opened("open", path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = va_arg(rest, mode_t);
  va_end(rest);
  return opened("open64", path, flags, mode);
}

int close(int descriptor) {
  static auto close_ = real<int (*)(int)>("close");
  if (name_of(descriptor).empty()) return close_(descriptor);
  std::lock_guard<std::recursive_mutex> guard(order);
  names[descriptor].clear();
  return close_(descriptor);
}

ssize_t write(int descriptor, const void* bytes, size_t length) {
  static auto write_ = real<ssize_t (*)(int, const void*, size_t)>("write");
  if (name_of(descriptor).empty()) return write_(descriptor, bytes, length);
  std::lock_guard<std::recursive_mutex> guard(order);
  off_t offset = lseek(descriptor, 0, SEEK_CUR);
  ssize_t done = write_(descriptor, bytes, length);
  if (done > 0) record("write", name_of(descriptor), offset, done, bytes);
  return done;
}

ssize_t pwrite(int d, const void* bytes, size_t length, off_t offset) {
  return written_at("pwrite", d, bytes, length, offset);
}
ssize_t pwrite64(int d, const void* bytes, size_t length, off64_t offset) {
  return written_at("pwrite64", d, bytes, length, offset);
}
int ftruncate(int d, off_t size) { return truncated("ftruncate", d, size); }
int ftruncate64(int d, off64_t size) { return truncated("ftruncate64", d, size); }
int fsync(int d) { return synced("fsync", d); }
int fdatasync(int d) { return synced("fdatasync", d); }

int unlink(const char* path) {
  static auto unlink_ = real<int (*)(const char*)>("unlink");
  std::string name = name_in_folder(path);
  if (name.empty()) return unlink_(path);
  std::lock_guard<std::recursive_mutex> guard(order);
  int failed = unlink_(path);
  if (!failed) record("unlink", name, 0, 0);
  return failed;
}

}  // extern "C"
