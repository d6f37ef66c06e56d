{{- define "crossmodel.labels" -}}
app.kubernetes.io/name: crossmodel
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "crossmodel.name" -}}
{{ printf "%s-%s" .root.Release.Name .part | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "crossmodel.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What every process reads. */}}
{{- define "crossmodel.environment" -}}
envFrom:
  - configMapRef:
      name: {{ .Release.Name }}-settings
  - secretRef:
      name: {{ .Values.secret }}
env:
  {{- include "crossmodel.engines" . | nindent 2 }}
{{- end }}

{{/* Where the engines of this chart are; the Secret says where others are. */}}
{{- define "crossmodel.engines" -}}
{{- if .Values.postgres.enabled }}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Release.Name }}-postgres-app
      key: uri
{{- end }}
{{- if .Values.redis.enabled }}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .Values.secret }}
      key: REDIS_PASSWORD
- name: REDIS_URL
  value: redis+cluster://:$(REDIS_PASSWORD)@{{ .Release.Name }}-redis:6379
- name: CELERY_BROKER_URL
  value: redis://:$(REDIS_PASSWORD)@{{ .Release.Name }}-broker:6379/0
{{- end }}
{{- end }}

{{- define "crossmodel.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "crossmodel.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
