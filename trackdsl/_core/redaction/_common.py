"""Data for `_likely`: common values of settings with names of secrets, and common pairs of letters."""

from __future__ import annotations

_WORDS = """
true false yes no on off none null nil nan undefined unset unknown empty missing default auto automatic manual any
all other others enabled disabled enable disable active inactive required optional allowed denied ok error warning
info debug trace public private internal external local remote shared secret secrets hidden password passwd passwort
pass passphrase passcode token tokens key keys apikey credential credentials login logout auth oauth oauth2 basic
bearer digest negotiate kerberos ntlm saml ldap sso jwt session cookie anonymous guest nobody user users username
root admin administrator superuser sudo owner master slave system service client server host hostname localhost
localdomain example sample demo dummy fake mock foo bar baz qux foobar placeholder changeme change test testing
tests tester train training validation valid val eval prod production stage staging dev devel develop development
release main trunk head latest current previous first last next new old random uniform normal gaussian constant
linear cosine sine exponential polynomial step plateau adam adamw sgd rmsprop adagrad adadelta lion lamb nadam relu
gelu silu swish tanh sigmoid softmax mean median sum max min mode std mse mae rmse accuracy precision recall loss
score metric metrics model models dataset data table index query search experiment run runs job task worker node
cluster gpu cpu tpu cuda rocm mps metal float double half int integer long short bool boolean string str bytes char
object list dict tuple set postgres postgresql mysql mariadb sqlite oracle mongo mongodb redis memcached cassandra
kafka rabbitmq rabbit elastic elasticsearch kibana grafana prometheus minio clickhouse snowflake databricks duckdb
neo influxdb influx timescale cockroach cockroachdb scylla couchdb couchbase arangodb dynamodb keycloak vertica
greenplum superset metabase nats zookeeper pulsar flink minioadmin spark hadoop hive presto trino airflow dagster
prefect luigi argo kubeflow mlflow wandb neptune comet tensorboard optuna hydra ray dask docker podman kubernetes
vault consul nginx apache tomcat jenkins gitlab github bitbucket git svn jupyter jupyterlab notebook colab kaggle
sagemaker vertex azure aws gcp google amazon microsoft huggingface hugging face openai anthropic cohere python java
javascript typescript rust golang ruby perl scala julia matlab linux ubuntu debian alpine fedora centos windows
darwin macos android ios chrome firefox safari sklearn scikit learn torch pytorch tensorflow keras jax flax numpy
pandas polars django flask xgboost lightgbm catboost prophet statsmodels spacy nltk gensim transformers diffusers
accelerate resnet resnext wideresnet vgg alexnet lenet inception xception densenet mobilenet efficientnet
efficientnetv convnext regnet squeezenet shufflenet googlenet nasnet mnasnet unet vnet deeplab yolo yolov yolox ssd
rcnn maskrcnn fasterrcnn retinanet detr vit deit swin beit clip dino dinov sam blip llava whisper wav wavlm hubert
bert roberta distilbert albert electra deberta xlnet bart mbart pegasus gpt llama vicuna alpaca mistral mixtral qwen
gemma gemini claude phi falcon bloom opt pythia mpt yi deepseek command flan lstm gru rnn cnn mlp gan vae ddpm ddim
mnist emnist cifar svhn imagenet tinyimagenet coco pascal voc cityscapes celeba librispeech squad glue superglue
mnli imdb wikitext cora iris wine titanic boston housing diabetes digits breast cancer adult census movielens criteo
avazu svm knn rf gbm gbdt lda pca ica umap tsne kmeans dbscan logistic regression ridge lasso forest tree boost
boosting bagging stacking ensemble utf ascii latin sha md hmac aes rsa dsa ecdsa ed base uuid hex json yaml toml xml
html csv tsv parquet arrow avro http https ftp ssh smtp imap tcp udp ipv tls ssl bfloat fp bf uint version exp fold
epoch layer block conv batchnorm maxpool avgpool dropout argon pbkdf bcrypt seed trial iter iteration batch rank
shard part chunk page line row col column file path dir port proc process thread qwerty letmein welcome iloveyou
monkey dragon sunshine princess football baseball abc abcd abcdef abcdefg alpha beta not given found specified
provided applicable used needed necessary the this that and with for gamma delta lambda sigma omega north south east
west central small medium large tiny huge big high low left right
"""
_PAIRS = """
th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi ri ro ic ne
ea ra ce li ch ll be ma si om ur ca el ta la ns di fo ho pe ec pr no ct us ac ot il tr ly nc et ut ss so rs un lo wa
ge ie wh ee wi em ad ol rt po we na ul ni ts mo ow pa im mi ai sh ir su id os iv ia am fi ci vi pl ig tu ev ld ry mp
fe bl ab gh ty op wo sa ay ex ke fr oo ag if ap gr od bo sp rd do uc bu ei ov by rm ep tt oc fa ef cu rn sc gi da yo
cr cl du ga qu ue ff ba ey ls va um pp ua up lu go ht ru ug ds lt pi rc rr eg au ck ew mu br bi pt ak pu ui rg ib tl
ny ki rk ys ob mm fu ph og ms ye ud mb ip ub oi rl gu dr hr cc tw ft wn nu af hu nn eo vo rv nf xp gn sm fl iz ok nl
my gl aw ju oa eq sy sl ps jo lf nv je nk kn gs dy hy ze ks xt bs ik dd rp sk
"""

#: Values of settings, states, placeholders, accounts, hosts, programs and models; and the best known passwords.
WORDS = frozenset(_WORDS.split())
#: The pairs of letters in most words of English and related languages.
PAIRS = frozenset(_PAIRS.split())
