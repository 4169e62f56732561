// Bounds one subproblem at a time, with the scratch memory of one thread. Included once for each instruction
// set. The class is spread over four files, one for each stage.

// What is known of the value of one node on the current subproblem.
template <class T>
struct Value {
    std::vector<double> centre, lower, upper;    // a reference run, and the box
    std::vector<double> base_cost;               // of affine nodes: what rows lose besides `cost`'s other terms
    Aligned<T> middle, radius, size, magnitude;  // the box around the centre: deviations, and |centre|
    Aligned<T> cost;                             // rows `a` on this value lose at most |a| . cost
    Aligned<T> lower_slope, upper_slope, lower_gain, upper_gain;     // of ReLUs: lines around the centre
    std::vector<int> chosen;                                         // coefficients that can be nonzero
    Aligned<T> rows;                                                 // of the backward pass
    bool open(int j) const { return lower[j] < 0 && upper[j] > 0; }  // of operands of ReLUs: unstable
    bool active = false;                                             // whether there are any
    std::vector<int> touched;  // which groups of PADDING columns of them can be nonzero; others hold anything
    std::vector<char> is_touched;
};

// A row that is bounded: `sign * element` of a node, for a purpose of the caller.
struct Target {
    int element;
    double sign;
    int tag;
};

// The lower lines of one ReLU in the row that is being optimised, and Adam's state.
template <class T>
struct Mix {
    Aligned<T> slope, gain, point;  // `point`: the relaxed minimiser's value of this node
    std::vector<float> alpha, first, second;
    std::vector<char> used;  // groups of its coefficients that the last pass reached
};

template <class T>
class Worker {
    using V = typename Lanes<T>::Vector;
    static constexpr int L = lanes<T>();

  public:
    Worker(const Layers<T>& layers, const Batch& batch)
        : all_(layers.layers), neurons_(layers.neurons), widest_(layers.widest), b_(batch) {
        const int n = static_cast<int>(all_.size());
        const std::size_t room = (std::size_t(1) << 18) / (sizeof(T) * static_cast<std::size_t>(layers.widest));
        capacity_ = static_cast<int>(std::min<std::size_t>(96, std::max<std::size_t>(8, room)));
        values_.resize(static_cast<std::size_t>(n));
        for (int k = 0; k < n; ++k) reserve(all_[k], values_[k]);
        share_.assign(static_cast<std::size_t>(neurons_) * b_.inputs, 0.0);
        terms_.assign(static_cast<std::size_t>(n), 4.0);
        for (const auto& layer : all_) {
            for (const auto& block : layer.blocks) terms_[block.source] += block.most + 4.0;
            if (layer.kind == Kind::relu) terms_[layer.source] += 5.0;
        }
        for (auto* a : {&constant_, &size_, &loss_, &low_}) a->resize(static_cast<std::size_t>(capacity_));
        for (auto* a : {&mid_, &rad_, &dev_, &mag_}) a->resize(static_cast<std::size_t>(layers.widest));
        exact_.resize(static_cast<std::size_t>(layers.widest));
    }

    std::uint64_t bounded_rows() const { return bounded_rows_; }
    std::uint64_t multiplications() const { return multiplications_; }

    void bound(int i) {
        item_ = i;
        clear_results();
        bool holds = start();
        for (int k = 1; holds && k < static_cast<int>(all_.size()); ++k)
            holds = all_[k].kind == Kind::affine ? affine(k) : relu(k);
        b_.empty[i] = holds ? 0 : 1;
        if (holds) final_rows();
    }

  private:
    static void reserve(const Layer<T>& layer, Value<T>& v) {
        const auto width = static_cast<std::size_t>(layer.width), stride = static_cast<std::size_t>(layer.stride);
        for (auto* a : {&v.centre, &v.lower, &v.upper, &v.base_cost}) a->assign(width, 0.0);
        for (auto* a : {&v.middle, &v.radius, &v.size, &v.magnitude, &v.cost}) a->resize(stride);
        v.is_touched.assign(stride / PADDING, 0);
        if (layer.kind != Kind::relu) return;
        for (auto* a : {&v.lower_slope, &v.upper_slope, &v.lower_gain, &v.upper_gain}) a->resize(stride);
    }

    void clear_results() {
        const auto i = static_cast<std::size_t>(item_), rows = static_cast<std::size_t>(b_.rows);
        const auto n = static_cast<std::size_t>(b_.inputs), splits = static_cast<std::size_t>(b_.splits);
        std::fill_n(b_.value + i * rows, rows, -INFINITE);
        std::fill_n(b_.loss + i * rows, rows, INFINITE);
        std::fill_n(b_.slope + i * rows * n, rows * n, 0.0);
        std::fill_n(b_.height + i * rows, rows, -INFINITE);
        std::fill_n(b_.split_slope + i * splits * n, splits * n, 0.0);
        std::fill_n(b_.split_height + i * splits, splits, -INFINITE);
        std::fill_n(b_.input_score + i * rows * n, rows * n, 0.0);
        std::fill_n(b_.neuron_score + i * rows, rows, -1.0);
        std::fill_n(b_.best_neuron + i * rows, rows, -1);
        b_.unstable[item_] = 0;
    }

#include "forward.hpp"
#include "backward.hpp"
#include "forms.hpp"
#include "ascend.hpp"

    const std::vector<Layer<T>>& all_;
    int neurons_, widest_;
    const Batch& b_;
    int item_ = 0, capacity_ = 0;
    std::vector<Value<T>> values_;
    std::vector<double> share_, terms_, constant_, size_, loss_, low_;
    std::vector<Target> targets_;
    std::vector<int> columns_;
    std::vector<Mix<T>> mixes_;
    Aligned<T> mid_, rad_, dev_, mag_;
    Aligned<double> exact_;
    double sum_size_ = 0, sum_magnitude_ = 0, slack_ = 0;
    std::uint64_t bounded_rows_ = 0, multiplications_ = 0;
};
