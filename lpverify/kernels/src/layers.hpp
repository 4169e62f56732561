// The weights of a graph in the type of the coefficients. Included once for each instruction set.

template <class T>
struct Aligned {
    struct Free {
        void operator()(T* p) const { ::operator delete[](p, std::align_val_t(64)); }
    };
    std::unique_ptr<T[], Free> data;
    std::size_t size = 0;

    void resize(std::size_t n) {
        if (n <= size) return;
        data.reset(static_cast<T*>(::operator new[](n * sizeof(T), std::align_val_t(64))));
        std::fill_n(data.get(), n, T(0));
        size = n;
    }
    T* get() const { return data.get(); }
};

// One block: row-major for backward steps, transposed for forward ones; both padded with zeros.
template <class T>
struct Matrix {
    int source, rows, cols;
    bool sparse;
    int most = 0;   // entries in one column, at most
    int terms = 0;  // entries in one row, at most; a column may occur several times in it
    int ld = 0, ldt = 0;
    Aligned<T> weight, turned;
    Aligned<double> exact_turned;
    std::vector<int> start, column;
    std::vector<T> value;
    std::vector<double> exact;

    explicit Matrix(const Block& b)
        : source(b.source),
          rows(b.rows),
          cols(b.cols),
          sparse(b.sparse),
          start(b.start),
          column(b.column),
          value(b.value.begin(), b.value.end()),
          exact(b.value) {
        most = rows, terms = cols;
        if (sparse) {
            std::vector<int> counts(static_cast<std::size_t>(cols));
            for (int j : column) ++counts[static_cast<std::size_t>(j)];
            most = *std::max_element(counts.begin(), counts.end());
            for (int i = 0; i < rows; ++i) terms = std::max(terms, start[i + 1] - start[i]);
            return;
        }
        ld = padded(cols), ldt = padded(rows);
        weight.resize(static_cast<std::size_t>(rows) * ld);
        turned.resize(static_cast<std::size_t>(cols) * ldt);
        exact_turned.resize(static_cast<std::size_t>(cols) * ldt);
        for (int i = 0; i < rows; ++i)
            for (int j = 0; j < cols; ++j) {
                const double w = b.dense[static_cast<std::size_t>(i) * cols + j];
                weight.get()[static_cast<std::size_t>(i) * ld + j] = static_cast<T>(w);
                turned.get()[static_cast<std::size_t>(j) * ldt + i] = static_cast<T>(w);
                exact_turned.get()[static_cast<std::size_t>(j) * ldt + i] = w;
            }
    }
};

// Rounding a weight to T errs by `unit<T>()`, unless it underflows: then the loss is absolute.
template <class T>
inline double lost_weight(const Block& b) {
    double most = 0;
    auto look = [&most](double w) {
        const double error = std::fabs(static_cast<double>(static_cast<T>(w)) - w);
        if (error > std::fabs(w) * unit<T>()) most = std::max(most, error);
        if (is_nan(error)) most = INFINITE;
    };
    for (double w : b.dense) look(w);
    for (double w : b.value) look(w);
    return most;
}

template <class T>
struct Layer {
    Kind kind;
    int width, stride;
    int source, consumers, offset;
    std::vector<Matrix<T>> blocks;
    std::vector<double> bias, bias_error;
    double weight_error;  // relative, of weights in T
    double lost = 0;      // absolute, of weights that underflow in T
    int inputs = 0;       // products summed for one element, at most
    bool after_relu = false;

    explicit Layer(const Node& n)
        : kind(n.kind),
          width(n.width),
          stride(padded(n.width)),
          source(n.source),
          consumers(n.consumers),
          offset(n.offset),
          bias(n.bias),
          bias_error(n.bias_error),
          weight_error(n.weight_error) {
        blocks.reserve(n.blocks.size());
        for (const Block& b : n.blocks) {
            blocks.emplace_back(b);
            inputs += blocks.back().terms;
            lost = std::max(lost, lost_weight<T>(b) * (b.sparse ? blocks.back().terms : 1));
        }
    }
};

template <class T>
struct Layers {
    std::vector<Layer<T>> layers;
    int neurons;
    int widest = 0;

    explicit Layers(const Graph& graph) : neurons(graph.neurons) {
        for (const Node& n : graph.nodes) {
            layers.emplace_back(n);
            widest = std::max(widest, layers.back().stride);
        }
    }
};
