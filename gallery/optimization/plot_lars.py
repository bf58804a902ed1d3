import keras
import numpy as np
import sys
from keras import ops
from dlcompanion import claims, datasets
from dlcompanion.optimization import LARS
from dlcompanion.training import fit_in_memory, restart
keras.utils.set_random_seed(claims.seed())
rng = np.random.default_rng(claims.seed())
(x_train, y_train), (x_test, y_test) = datasets.digits(flat=True, seed=claims.seed())
classes = int(y_train.max()) + 1
def network():
    layers = [keras.Input((x_train.shape[-1],))]
    for i in range(5):
        layers.append(keras.layers.Dense(48, "relu", kernel_initializer="he_normal"))
    return keras.Sequential([*layers, keras.layers.Dense(classes)])
model = network()
xe = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
batch = int(sys.argv[1]); epochs=int(sys.argv[2])
n = len(x_train)//batch*batch
many = np.tile(x_train[:n], (epochs,1)), np.tile(y_train[:n], epochs)
def run(optimizer, rates):
    model.compile(optimizer, xe)
    for rate in rates:
        rows=[]
        for seed in claims.seeds(5):
            restart(model, seed)
            model.optimizer.learning_rate = rate
            fit_in_memory(model, *many, batch_size=batch, shuffle=False, verbose=0)
            z = model.predict_on_batch(x_test)
            z = ops.convert_to_numpy(ops.log_softmax(z))
            rows.append((-z[np.arange(len(y_test)), y_test].mean(), (z.argmax(1)==y_test).mean()))
        rows=np.array(rows)
        print(type(optimizer).__name__, rate, np.round(np.sort(rows[:,0]),3), np.round(np.sort(rows[:,1]),3), flush=True)
run(keras.optimizers.SGD(0.1, momentum=0.9), [0.01,0.03,0.1,0.3])
run(LARS(0.1, momentum=0.9, trust_coefficient=0.01), [0.3,1,3,10])
run(keras.optimizers.Lamb(0.1), [0.003,0.01,0.03,0.1])
