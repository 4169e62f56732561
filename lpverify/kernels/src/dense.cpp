// The engine of dense.hpp. Compiled once for each instruction set; LPVERIFY_ISA names its namespace.
#include "dense.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <new>
#include <thread>
#if defined(LPVERIFY_X86)
#include <xmmintrin.h>
#endif

namespace lpverify {
namespace LPVERIFY_ISA {

#include "vector.hpp"
#include "rounding.hpp"

#include "layers.hpp"
#include "worker.hpp"

// Round to nearest, no flushing of subnormal numbers, whatever another library has set; undone at the end.
class DefaultRounding {
  public:
#if defined(LPVERIFY_X86)
    DefaultRounding() : before_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
    ~DefaultRounding() { _mm_setcsr(before_); }

  private:
    unsigned before_;
#endif
};

template <class T>
class Precision {
  public:
    explicit Precision(const Graph& graph) : layers_(graph) {}

    // Bounds all subproblems; threads take the next one each.
    void bound(const Batch& batch, int threads) const {
        std::atomic<int> next{0};
        std::atomic<std::uint64_t> rows{0}, multiplications{0};
        std::mutex lock;
        std::exception_ptr failure;
        auto run = [&] {
            const DefaultRounding rounding;
            try {
                Worker<T> worker(layers_, batch);
                for (int i = next++; i < batch.count; i = next++) worker.bound(i);
                rows += worker.bounded_rows();
                multiplications += worker.multiplications();
            } catch (...) {
                std::lock_guard<std::mutex> guard(lock);
                failure = std::current_exception();
            }
        };
        std::vector<std::thread> others;
        try {
            others.reserve(std::max(threads, 1));
            while (static_cast<int>(others.size()) + 1 < std::min(threads, batch.count)) others.emplace_back(run);
        } catch (const std::exception&) {
            // No more threads or memory: those there are do the work. A thread that is not joined would abort.
        }
        run();
        for (auto& other : others) other.join();
        if (failure) std::rethrow_exception(failure);
        batch.work[0] += rows;
        batch.work[1] += multiplications;
    }

  private:
    Layers<T> layers_;
};

class DenseEngine : public Engine {
  public:
    explicit DenseEngine(const Graph& graph) : graph_(graph), single_(graph) {}

    void bound(const Batch& batch, bool double_precision, int threads) const override {
        if (!double_precision) return single_.bound(batch, threads);
        std::call_once(made_, [this] { double_ = std::make_unique<Precision<double>>(graph_); });
        double_->bound(batch, threads);
    }

  private:
    Graph graph_;
    Precision<float> single_;
    mutable std::once_flag made_;
    mutable std::unique_ptr<Precision<double>> double_;
};

}  // namespace LPVERIFY_ISA

#define LPVERIFY_JOIN_(a, b) a##b
#define LPVERIFY_JOIN(a, b) LPVERIFY_JOIN_(a, b)
std::unique_ptr<Engine> LPVERIFY_JOIN(make_, LPVERIFY_ISA)(const Graph& graph) {
    return std::make_unique<LPVERIFY_ISA::DenseEngine>(graph);
}

}  // namespace lpverify
